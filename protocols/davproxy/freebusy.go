package davproxy

import (
	"errors"
	"mime"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxFreeBusy bounds a question for free and busy times, in bytes.
const maxFreeBusy = 64 << 10

// errNotAQuestion says that a message to the outbox is anything else, or can be read in more than one way.
var errNotAQuestion = errors.New("no question for free and busy times")

// takeQuestion judges what is put into the outbox: one question for free and busy times (RFC 6638 section 5). Invitations are sent by
// the server itself when an event is stored, so there is nothing else to send.
func (x *exchange) takeQuestion() answer {
	text, refusal := x.readAll(x.w, x.r, maxFreeBusy)
	if refusal.status != 0 {
		return refusal
	}
	media, params, err := mime.ParseMediaType(x.r.Header.Get("Content-Type"))
	if err != nil || media != "text/calendar" || params["charset"] != "" && !strings.EqualFold(params["charset"], "utf-8") {
		return answer{status: http.StatusUnsupportedMediaType, text: "Only text/calendar in UTF-8 is taken here."}
	}
	if checkFreeBusy(string(text)) != nil {
		return notAQuestion
	}
	x.setBody(text, "text/calendar; charset=utf-8")
	return answer{}
}

// checkFreeBusy reads an iTIP request for free and busy times (RFC 5546 section 3.3.2). Its form is strict where servers differ: what
// one of them could take for another component, or for the end of a line, is refused.
func checkFreeBusy(text string) error {
	if !utf8.ValidString(text) || strings.ContainsFunc(text, breaksLines) {
		return errNotAQuestion
	}
	text = strings.ReplaceAll(text, "\r\n", "\n")
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\n ", ""), "\n\t", "") // RFC 5545 section 3.1
	if strings.Contains(text, "\r") {
		return errNotAQuestion
	}
	var frame []string // what gives the message its form, in order
	methods := 0
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		end := strings.IndexFunc(line, func(r rune) bool { return r == ':' || r == ';' })
		if end < 0 {
			return errNotAQuestion
		}
		switch strings.ToUpper(strings.TrimFunc(line[:end], func(r rune) bool { return unicode.IsSpace(r) || r == '\ufeff' })) {
		case "BEGIN", "END":
			if !isASCII(line) { // ToUpper and EqualFold know letters that others don't take for S or I
				return errNotAQuestion
			}
			frame = append(frame, strings.ToUpper(line))
		case "METHOD":
			if methods++; !isASCII(line) || !strings.EqualFold(line, "METHOD:REQUEST") || len(frame) != 1 {
				return errNotAQuestion
			}
		}
	}
	if strings.Join(frame, " ") != "BEGIN:VCALENDAR BEGIN:VFREEBUSY END:VFREEBUSY END:VCALENDAR" || methods != 1 || !strings.EqualFold(text[:len("BEGIN:VCALENDAR")], "BEGIN:VCALENDAR") {
		return errNotAQuestion
	}
	return nil
}

// breaksLines tells which characters some reader takes for the end of a line, or stops at, besides the ones of RFC 5545.
func breaksLines(r rune) bool {
	return unicode.IsControl(r) && r != '\r' && r != '\n' && r != '\t' || r == '\u2028' || r == '\u2029'
}

func isASCII(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r >= utf8.RuneSelf })
}
