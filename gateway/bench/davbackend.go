package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"
)

// itemSuffix ends an item's name behind its size: "65536.ics".
const itemSuffix = ".ics"

// maxItem bounds what the synthetic backend makes up, in bytes.
const maxItem = 25 << 20

// ServeDAV is a calendar server that answers from memory, for benchmarks: it takes every login. /NAME/ is anybody's principal and home,
// everything below it a calendar, everything below that an event of as many bytes as its name says (/alice/work/65536.ics). What is
// PUT is forgotten. It serves until ctx ends.
func ServeDAV(ctx context.Context, ln net.Listener) error {
	return serveHTTP(ctx, ln, http.HandlerFunc(dav))
}

func serveHTTP(ctx context.Context, ln net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: opTimeout, IdleTimeout: 5 * time.Minute}
	defer context.AfterFunc(ctx, func() { srv.Close() })()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func dav(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	switch r.Method {
	case "PROPFIND":
		answer := listing(r.URL.EscapedPath(), r.Header.Get("Depth") == "0")
		h.Set("Content-Type", "application/xml; charset=utf-8")
		h.Set("Content-Length", strconv.Itoa(len(answer)))
		w.WriteHeader(http.StatusMultiStatus)
		io.WriteString(w, answer)
	case http.MethodGet:
		size, err := strconv.Atoi(strings.TrimSuffix(path.Base(r.URL.Path), itemSuffix))
		if err != nil || size < 0 || size > maxItem {
			http.NotFound(w, r)
			return
		}
		parts := item(size)
		h.Set("Content-Type", "text/calendar; charset=utf-8")
		h.Set("Content-Length", strconv.Itoa(len(parts[0])+len(parts[1])+len(parts[2])))
		h.Set("Etag", `"1"`)
		for _, part := range parts {
			w.Write(part)
		}
	case http.MethodPut:
		io.Copy(io.Discard, r.Body)
		h.Set("Etag", `"1"`)
		w.WriteHeader(http.StatusNoContent)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

// members is how many events a calendar lists.
const members = 20

// listing answers PROPFIND with more than any client asks for.
func listing(at string, alone bool) string {
	name, rest, _ := strings.Cut(strings.Trim(at, "/"), "/")
	home := "/" + name + "/"
	var b strings.Builder
	b.WriteString(`<?xml version="1.0" encoding="utf-8"?><D:multistatus xmlns:D="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav" xmlns:CR="urn:ietf:params:xml:ns:carddav" xmlns:CS="http://calendarserver.org/ns/">`)
	if rest == "" {
		fmt.Fprintf(&b, entry, home, "<D:collection/><D:principal/>", "home", home)
		if !alone {
			fmt.Fprintf(&b, entry, home+"work/", "<D:collection/><C:calendar/>", "work", home)
		}
	} else {
		collection := home + strings.TrimSuffix(rest, "/") + "/"
		fmt.Fprintf(&b, entry, collection, "<D:collection/><C:calendar/>", "work", home)
		for n := 1; n <= members && !alone; n++ {
			fmt.Fprintf(&b, `<D:response><D:href>%s%d.ics</D:href><D:propstat><D:prop><D:resourcetype/><D:getetag>"1"</D:getetag></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>`, collection, n<<10)
		}
	}
	b.WriteString(`</D:multistatus>`)
	return b.String()
}

const entry = `<D:response><D:href>%[1]s</D:href><D:propstat><D:prop><D:resourcetype>%[2]s</D:resourcetype><D:displayname>%[3]s</D:displayname>` +
	`<D:current-user-principal><D:href>%[4]s</D:href></D:current-user-principal><C:calendar-home-set><D:href>%[4]s</D:href></C:calendar-home-set>` +
	`<CR:addressbook-home-set><D:href>%[4]s</D:href></CR:addressbook-home-set><D:sync-token>urn:bench:1</D:sync-token><CS:getctag>1</CS:getctag>` +
	`</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>`

const (
	itemHead = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//postern//bench//EN\r\nBEGIN:VEVENT\r\nUID:bench\r\nDTSTAMP:20260101T000000Z\r\n" +
		"DTSTART:20260101T090000Z\r\nSUMMARY:bench\r\nDESCRIPTION:"
	itemTail = "\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
)

// item makes an event of so many bytes, or of as few as it takes, in three parts.
func item(size int) [3][]byte {
	filling := max(0, size-len(itemHead)-len(itemTail))
	return [3][]byte{[]byte(itemHead), folded()[:filling], []byte(itemTail)}
}

// folded is a long text in folded lines (RFC 5545 section 3.1). Where it is cut short, the tail begins a line all the same.
var folded = sync.OnceValue(func() []byte {
	const line = "abcdefghijklmnopqrstuvwxyz abcdefghijklmnopqrstuvwxyz 0123456789\r\n "
	return bytes.Repeat([]byte(line), maxItem/len(line)+1)
})
