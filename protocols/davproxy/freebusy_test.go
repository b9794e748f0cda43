package davproxy

import (
	"strings"
	"testing"
)

const asksFreeBusy = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//Lab//EN\r\nMETHOD:REQUEST\r\nBEGIN:VFREEBUSY\r\nUID:1\r\nDTSTAMP:20260101T000000Z\r\n" +
	"DTSTART:20260101T000000Z\r\nDTEND:20260201T000000Z\r\nORGANIZER;CN=\"A: B; C\":mailto:alice@x\r\nATTENDEE:mailto:b\r\n ob@x\r\nEND:VFREEBUSY\r\nEND:VCALENDAR\r\n"

func TestQuestionsForFreeBusy(t *testing.T) {
	in := func(old, new string) string {
		if !strings.Contains(asksFreeBusy, old) {
			t.Fatalf("no %q", old)
		}
		return strings.Replace(asksFreeBusy, old, new, 1)
	}
	for name, text := range map[string]string{
		"as it is":         asksFreeBusy,
		"bare line feeds":  strings.ReplaceAll(asksFreeBusy, "\r\n", "\n"),
		"small letters":    in("BEGIN:VFREEBUSY", "begin:vfreebusy"),
		"no line at end":   strings.TrimSuffix(asksFreeBusy, "\r\n"),
		"a folded request": in("METHOD:REQUEST", "METHOD:REQ\r\n UEST"),
		"a folded end":     in("END:VFREEBUSY", "END:VFREE\r\n\tBUSY"),
	} {
		if err := checkFreeBusy(text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	const event = "BEGIN:VEVENT\r\nUID:2\r\nATTENDEE:mailto:b@x\r\nEND:VEVENT\r\n"
	for name, text := range map[string]string{
		"nothing":                      "",
		"a card":                       "BEGIN:VCARD\r\nEND:VCARD\r\n",
		"no method":                    in("METHOD:REQUEST\r\n", ""),
		"another method":               in("METHOD:REQUEST", "METHOD:CANCEL"),
		"two methods":                  in("METHOD:REQUEST", "METHOD:REQUEST\r\nMETHOD:CANCEL"),
		"a method with a parameter":    in("METHOD:REQUEST", "METHOD;X=1:REQUEST"),
		"a method inside":              in("METHOD:REQUEST\r\nBEGIN:VFREEBUSY", "BEGIN:VFREEBUSY\r\nMETHOD:REQUEST"),
		"no component":                 in("BEGIN:VFREEBUSY\r\n", ""),
		"an event":                     strings.ReplaceAll(asksFreeBusy, "VFREEBUSY", "VEVENT"),
		"an event besides":             in("BEGIN:VFREEBUSY", event+"BEGIN:VFREEBUSY"),
		"an event behind":              in("END:VFREEBUSY\r\n", "END:VFREEBUSY\r\n"+event),
		"an event inside":              in("END:VFREEBUSY", event+"END:VFREEBUSY"),
		"an event with a parameter":    in("END:VFREEBUSY", "BEGIN;X=1:VEVENT\r\nEND;X=1:VEVENT\r\nEND:VFREEBUSY"),
		"an event behind a space":      in("END:VFREEBUSY", "BEGIN :VEVENT\r\nEND :VEVENT\r\nEND:VFREEBUSY"),
		"an event behind a mark":       in("END:VFREEBUSY", "\ufeffBEGIN:VEVENT\r\n\ufeffEND:VEVENT\r\nEND:VFREEBUSY"),
		"an event in a folded line":    in("END:VFREEBUSY", "BEG\r\n IN:VEVENT\r\nEND:VEVENT\r\nEND:VFREEBUSY"),
		"an event behind a bare CR":    in("UID:1", "UID:1\rBEGIN:VEVENT\rEND:VEVENT"),
		"an event behind a form feed":  in("UID:1", "UID:1\fBEGIN:VEVENT\fEND:VEVENT"),
		"an event behind a vertical":   in("UID:1", "UID:1\vBEGIN:VEVENT"),
		"an event behind NEL":          in("UID:1", "UID:1\u0085BEGIN:VEVENT"),
		"an event behind U+2028":       in("UID:1", "UID:1\u2028BEGIN:VEVENT"),
		"a NUL":                        in("UID:1", "UID:1\x00"),
		"no UTF-8":                     in("UID:1", "UID:\xff"),
		"two questions":                in("END:VFREEBUSY\r\n", "END:VFREEBUSY\r\nBEGIN:VFREEBUSY\r\nEND:VFREEBUSY\r\n"),
		"two calendars":                asksFreeBusy + asksFreeBusy,
		"something before":             "X:1\r\n" + asksFreeBusy,
		"something behind":             asksFreeBusy + "x",
		"a time zone":                  in("BEGIN:VFREEBUSY", "BEGIN:VTIMEZONE\r\nEND:VTIMEZONE\r\nBEGIN:VFREEBUSY"),
		"an empty line":                in("UID:1", "\r\nUID:1"),
		"a line that names nothing":    in("UID:1", "UID"),
		"ends the wrong way round":     in("END:VFREEBUSY\r\nEND:VCALENDAR", "END:VCALENDAR\r\nEND:VFREEBUSY"),
		"begins with a folded line":    " " + asksFreeBusy,
		"a letter that is no S":        in("METHOD:REQUEST", "METHOD:REQUE\u017fT"),
		"a component of that letter":   in("BEGIN:VFREEBUSY", "BEGIN:VFREEBU\u017fY"),
		"a letter that is no I":        in("END:VFREEBUSY", "BEG\u0131N:VEVENT\r\nEND:VEVENT\r\nEND:VFREEBUSY"),
		"a calendar with other things": in("BEGIN:VCALENDAR", "BEGIN:VCALENDAR2"),
	} {
		if checkFreeBusy(text) == nil {
			t.Errorf("%s was taken: %q", name, text)
		}
	}
}
