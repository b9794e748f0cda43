package davproxy

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"

	"postern/protocols"
)

// mount joins one public home to its place at a backend.
type mount struct {
	kind      kind
	id        string // public
	route     *protocols.Route
	principal []string // path segments at the backend
	home      []string
	boxes

	asked target // of the last call of inward, and what it said: most requests ask for one place again and again
	path  string
}

// boxes are what a backend has for invitations.
type boxes struct {
	inbox, outbox []string // path segments; none: it has no such box
	automatic     bool     // it sends and takes invitations by itself (RFC 6638 section 2)
	addresses     []string // mailto: URLs under which it knows the account
}

// of returns where a box is; nil: nowhere, or it is none.
func (b *boxes) of(k kind) []string {
	switch k {
	case inbox:
		return b.inbox
	case outbox:
		return b.outbox
	}
	return nil
}

// inward is a target's path at the backend, escaped. A box that the backend does not have has none.
func (m *mount) inward(t target) string {
	if t != m.asked || m.path == "" {
		m.asked, m.path = t, m.inwardOf(t)
	}
	return m.path
}

func (m *mount) inwardOf(t target) string {
	place := m.home
	if t.kind.isBox() {
		if place = m.of(t.kind); len(place) == 0 {
			return ""
		}
	}
	b := appendSegments(append(make([]byte, 0, usualPath), '/'), place...)
	return string(t.appendBelow(b))
}

// outward says what a backend's href is in this mount.
func (m *mount) outward(href string) (target, bool) {
	segments, slash, ok := m.read(make([]string, 0, usualDepth), href)
	if !ok {
		return target{}, false
	}
	for _, k := range []kind{inbox, outbox} { // first: they may lie in the home
		if below, ok := under(m.of(k), segments); ok {
			t := insideBox(k, m.id, below, slash)
			return t, t.place != nowhere
		}
	}
	below, ok := under(m.home, segments)
	if !ok || len(below) > 2 || len(below) == 2 && slash {
		return target{}, false
	}
	return inside(m.kind, m.id, below), true
}

// under returns what path segments have behind those of a place, if they are the place or lie in it.
func under(place, segments []string) (below []string, ok bool) {
	if len(place) == 0 || len(segments) < len(place) || !slices.Equal(segments[:len(place)], place) {
		return nil, false
	}
	return segments[len(place):], true
}

// isBox tells whether a path in the home is a box at the backend: there it can't be anything else.
func (m *mount) isBox(t target) bool {
	path := m.inward(t)
	return len(m.inbox) > 0 && path == join(m.inbox) || len(m.outbox) > 0 && path == join(m.outbox)
}

// leads tells whether an href leads to this backend.
func (m *mount) leads(href string) bool {
	_, err := pathOf(href, hostOf(m.route))
	return err == nil
}

// isPrincipal tells whether a backend's href is the account's own principal.
func (m *mount) isPrincipal(href string) bool {
	segments, _, ok := m.read(make([]string, 0, usualDepth), href)
	return ok && slices.Equal(segments, m.principal)
}

// read appends the segments of a backend's href: a path, or a URL of this backend.
func (m *mount) read(segments []string, href string) (_ []string, slash, ok bool) {
	path, err := pathOf(href, hostOf(m.route))
	if err != nil {
		return nil, false, false
	}
	segments, slash, err = split(segments, path)
	return segments, slash, err == nil
}

// request makes a request to the mount's backend. Its path is in our spelling, and there is no query; so there is nothing to parse.
// length is that of the body; -1: unknown.
func (m *mount) request(ctx context.Context, method, path string, h http.Header, body io.ReadCloser, length int64) *http.Request {
	req := http.Request{
		Method: method, URL: &url.URL{Scheme: scheme(m.route), Host: hostOf(m.route), Opaque: path}, Header: h,
		Body: body, ContentLength: length,
	}
	return req.WithContext(ctx)
}

// held is a body that is here. It can be sent again.
type held struct{ bytes.Reader }

func hold(text []byte) *held {
	h := &held{}
	h.Reset(text)
	return h
}

func (*held) Close() error { return nil }
