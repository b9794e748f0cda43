package davproxy

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"postern/authstore"
)

// errPath says that a path can be read in more than one way. It is refused, never repaired: gateway and backend must not
// come to different ends (Radicale and Xandikos serve "..", "%2e%2e", "//" and "%2f" alike).
var errPath = errors.New("the path can be read in more than one way")

// place says what a public path names.
type place uint8

const (
	nowhere    place = iota
	wellKnown        // leads to the lobby (RFC 6764 section 5)
	lobby            // answers discovery only
	principal        // the account
	home             // where one kind of collections is
	collection       // one calendar or address book, or a box
	member           // one event, task, contact or invitation
)

// target is a public path, taken apart. Its names are decoded.
type target struct {
	place      place
	kind       kind   // of the mount: home, collection, member
	id         string // the account's public id: principal, home, collection, member
	collection string // empty: a box, of which an account has one
	member     string
	public     string // lobby: the path itself
}

// usualPath is the length of most paths, in bytes: they are put together in memory that costs nothing.
const usualPath = 128

// path is the target's one public spelling.
func (t target) path() string { return string(t.appendPath(make([]byte, 0, usualPath))) }

// appendPath appends the target's path.
func (t target) appendPath(dst []byte) []byte {
	switch t.place {
	case principal:
		return appendSegments(append(dst, "/dav/p/"...), t.id)
	case home, collection, member:
		dst = append(append(append(dst, "/dav/"...), mountNames[t.kind]...), '/')
		return t.appendBelow(appendSegments(dst, t.id))
	}
	return append(dst, t.public...)
}

// appendBelow appends what stands behind the path of the home or the box, at the backend too.
func (t target) appendBelow(dst []byte) []byte {
	switch {
	case t.kind.isBox():
		return appendEncoded(dst, t.member)
	case t.place == collection:
		return appendSegments(dst, t.collection)
	case t.place == member:
		return appendEncoded(appendSegments(dst, t.collection), t.member)
	}
	return dst
}

// in tells whether the target lies in the same collection of the same mount as another.
func (t target) in(o target) bool {
	return t.kind == o.kind && t.id == o.id && t.collection == o.collection
}

// mountNames are how kinds stand in paths.
var mountNames = [...]string{calendar: "cal", contacts: "card", inbox: "inbox", outbox: "outbox"}

// locate reads a request's target as it came: a path, or an absolute URL to host. A query is refused, since nothing here has
// one and backends know some (Cyrus: ?action=attachment-add).
func locate(raw, host string) (target, error) {
	path, err := pathOf(raw, host)
	if err != nil {
		return target{}, err
	}
	segments, slash, err := split(make([]string, 0, usualDepth), path)
	if err != nil {
		return target{}, err
	}
	return named(segments, slash), nil
}

// pathOf takes the path out of an absolute URL, whose host must be ours.
func pathOf(raw, host string) (string, error) {
	if strings.HasPrefix(raw, "/") {
		return raw, nil
	}
	for _, scheme := range []string{"https://", "http://"} {
		if len(raw) < len(scheme) || !strings.EqualFold(raw[:len(scheme)], scheme) {
			continue
		}
		authority, path, _ := strings.Cut(raw[len(scheme):], "/")
		if host == "" || !strings.EqualFold(bare(authority, scheme), bare(host, scheme)) {
			return "", errPath
		}
		return "/" + path, nil
	}
	return "", errPath
}

// bare takes the scheme's own port off a host.
func bare(host, scheme string) string {
	if scheme == "https://" {
		return strings.TrimSuffix(host, ":443")
	}
	return strings.TrimSuffix(host, ":80")
}

// usualDepth is how many segments paths have here at most, and most at backends.
const usualDepth = 5

// split appends the segments of an escaped path, and tells whether it ended with a slash.
func split(segments []string, path string) (_ []string, slash bool, err error) {
	if !strings.HasPrefix(path, "/") {
		return nil, false, errPath
	}
	if path == "/" {
		return segments, true, nil
	}
	path = path[1:]
	if strings.HasSuffix(path, "/") {
		path, slash = path[:len(path)-1], true
	}
	for more := true; more; {
		var raw string
		raw, path, more = strings.Cut(path, "/")
		segment := raw
		if !isSimple(raw) {
			if strings.ContainsAny(raw, "?#\\") {
				return nil, false, errPath
			}
			if segment, err = url.PathUnescape(raw); err != nil || !plain(segment) {
				return nil, false, errPath
			}
		}
		segments = append(segments, segment)
	}
	return segments, slash, nil
}

// plain tells whether a decoded segment is a name that everybody reads alike.
func plain(segment string) bool {
	before, _, _ := strings.Cut(segment, ";") // some servers cut parameters off before they look at dots
	if segment == "" || before == "." || before == ".." || !utf8.ValidString(segment) {
		return false
	}
	for i, r := range segment {
		if r == '/' || r == '\\' || unicode.IsControl(r) || r == utf8.RuneError || r == '\ufeff' {
			return false
		}
		if r == '%' && len(segment) > i+2 && isHex(segment[i+1]) && isHex(segment[i+2]) { // would decode once more
			return false
		}
	}
	return true
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
}

// join writes path segments in our spelling, with a slash behind them.
func join(segments []string) string {
	return string(appendSegments(append(make([]byte, 0, usualPath), '/'), segments...))
}

// appendSegments appends path segments in our spelling, each with a slash behind it.
func appendSegments(dst []byte, segments ...string) []byte {
	for _, s := range segments {
		dst = append(appendEncoded(dst, s), '/')
	}
	return dst
}

// isSimple tells whether a segment reads the same to us and to backends, encoded or not: as most do.
func isSimple[T string | []byte](segment T) bool {
	for i := range len(segment) {
		if !unreserved[segment[i]] {
			return false
		}
	}
	return len(segment) > 0 && string(segment) != "." && string(segment) != ".."
}

// appendEncoded appends a segment in the one way in which we write it, to clients and to backends.
func appendEncoded(dst []byte, segment string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(segment) {
		c := segment[i]
		if unreserved[c] {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		}
	}
	return dst
}

// unreserved are the bytes that need no escape.
var unreserved = setOf(isUnreserved)

// isUnreserved tells what needs no escape (RFC 3986 section 2.3), and the sign in names that are addresses.
func isUnreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~@", c) >= 0
}

// named says what a path names. A member's path has no slash behind it; every other one has one, asked for or not.
func named(segments []string, slash bool) target {
	n := len(segments)
	top := ""
	if n > 0 {
		top = segments[0]
	}
	switch {
	case n == 2 && top == ".well-known" && (segments[1] == "caldav" || segments[1] == "carddav"):
		return target{place: wellKnown}
	case n == 0, n == 1 && (top == "dav" || top == "principals"):
		return lobbyAt(segments)
	case top != "dav":
		return target{}
	case n == 2 && (segments[1] == "p" || kindOfMount(segments[1]) != unknown):
		return lobbyAt(segments)
	case n == 3 && segments[1] == "p":
		return target{place: principal, id: segments[2]}
	}
	return within(segments[1:], slash)
}

func lobbyAt(segments []string) target {
	path := "/"
	if len(segments) > 0 {
		path = "/" + strings.Join(segments, "/") + "/" // these names need no escape
	}
	return target{place: lobby, public: path}
}

// within names what lies in a mount: its name, the public id, collection, member.
func within(segments []string, slash bool) target {
	k := kindOfMount(segments[0])
	if k == unknown || len(segments) > 4 || len(segments) == 4 && slash {
		return target{}
	}
	if k.isBox() {
		return insideBox(k, segments[1], segments[2:], slash)
	}
	return inside(k, segments[1], segments[2:])
}

// insideBox names a box and what lies in it: invitations in the inbox; nothing that clients reach in the outbox.
func insideBox(k kind, id string, below []string, slash bool) target {
	switch {
	case len(below) == 0:
		return target{place: collection, kind: k, id: id}
	case len(below) == 1 && !slash && k == inbox:
		return target{place: member, kind: k, id: id, member: below[0]}
	}
	return target{}
}

// inside names what lies in a home: nothing but collections, and nothing in these but members.
func inside(k kind, id string, below []string) target {
	t := target{place: home, kind: k, id: id}
	if len(below) > 0 {
		t.place, t.collection = collection, below[0]
	}
	if len(below) > 1 {
		t.place, t.member = member, below[1]
	}
	return t
}

func kindOfMount(name string) kind {
	return kind(max(0, slices.Index(mountNames[:], name)))
}

// owned tells whether a target is the grant's own, or nobody's.
func (t target) owned(g *authstore.Grant) bool {
	return t.id == "" && t.place == lobby || t.id != "" && t.id == g.PublicID
}
