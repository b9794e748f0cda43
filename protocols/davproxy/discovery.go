package davproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"postern/protocols"
)

// homeLife is how long a backend's answer to "where are the collections" is believed.
const homeLife = 5 * time.Minute

type homeKey struct {
	kind                           kind
	backend, address, login, asked string
}

// homePaths are what a backend tells of an account.
type homePaths struct {
	principal, home []string
	boxes
}

// Errors of discovery.
var (
	errOtherPrincipal = errors.New("the backend's principal is not the configured one")
	errNoPrincipal    = errors.New("the backend names no principal")
	errNoHome         = errors.New("the backend names no home for these collections")
	errHomePath       = errors.New("the backend's home can't be used")
)

// mountOf finds the home of a kind at its backend. Where the backend does not tell, the mount has only the route; nil: there is none.
func (ss *session) mountOf(k kind) (*mount, error) {
	s, k := ss.server, k.content()
	r, err := s.o.Router.Route(ss.ctx, k.String(), ss.grant)
	if err != nil {
		return nil, err
	}
	key := homeKey{k, r.Backend, r.Address, r.Login, r.Path}
	paths, ok := s.homes.get(key)
	if !ok {
		if paths, err = discover(ss.ctx, &davClient{ss.do, r}, k); err != nil {
			return &mount{kind: k, route: r}, err
		}
		s.homes.put(key, paths, homeLife)
	}
	return &mount{kind: k, id: ss.grant.PublicID, route: r, principal: paths.principal, home: paths.home, boxes: paths.boxes}, nil
}

// davClient asks a backend the gateway's own questions.
type davClient struct {
	do    func(*protocols.Route, *http.Request) (*http.Response, error)
	route *protocols.Route
}

// statusError is a backend's answer that does not help.
type statusError struct{ status int }

func (e *statusError) Error() string {
	return fmt.Sprintf("status %d %s", e.status, http.StatusText(e.status))
}

// homeProperties name where a kind of collections is.
var homeProperties = map[kind]name{calendar: {nsCalDAV, "calendar-home-set"}, contacts: {nsCardDAV, "addressbook-home-set"}}

const askPrincipal = xmlHeader + `<propfind xmlns="DAV:" xmlns:C="` + nsCalDAV + `" xmlns:A="` + nsCardDAV + `"><prop><current-user-principal/>` +
	`<C:calendar-home-set/><A:addressbook-home-set/><C:schedule-inbox-URL/><C:schedule-outbox-URL/><C:calendar-user-address-set/></prop></propfind>`

// discover asks the backend for the principal and what it has. What the backend names must be what the template made: a backend
// that takes everybody for the same person must not show one account's data to all.
func discover(ctx context.Context, c *davClient, k kind) (homePaths, error) {
	ctx, cancel := context.WithTimeout(ctx, metadataTime)
	defer cancel()
	asked, err := decoded(c.route.Path)
	if err != nil {
		return homePaths{}, fmt.Errorf("the principal's path %q: %w", c.route.Path, err)
	}
	props, err := c.ask(ctx, asked)
	if err != nil {
		return homePaths{}, fmt.Errorf("ask for the principal: %w", err)
	}
	m := &mount{route: c.route}
	own, ok := m.place(props[name{nsDAV, "current-user-principal"}])
	switch {
	case !ok:
		return homePaths{}, fmt.Errorf("ask for the principal: %w", errNoPrincipal)
	case len(asked) > 0 && !slices.Equal(own, asked):
		return homePaths{}, fmt.Errorf("%w: %s, not %s", errOtherPrincipal, join(own), join(asked))
	case len(asked) == 0 && len(own) > 0:
		if props, err = c.ask(ctx, own); err != nil {
			return homePaths{}, fmt.Errorf("ask for the home of %s: %w", k, err)
		}
	}
	found := homePaths{principal: own}
	if found.home, err = m.homeIn(props, k); err != nil {
		return homePaths{}, err
	}
	found.boxes = m.boxesIn(props, found)
	if k == calendar && len(found.inbox)+len(found.outbox) > 0 {
		if found.automatic, err = c.supports(ctx, found.home, "calendar-auto-schedule"); err != nil {
			return homePaths{}, fmt.Errorf("ask what the home of %s can do: %w", k, err)
		}
	}
	return found, nil
}

// homeIn returns the home of a kind that a principal's properties name.
func (m *mount) homeIn(props map[name][]string, k kind) ([]string, error) {
	hrefs := props[homeProperties[k]]
	if len(hrefs) == 0 {
		return nil, fmt.Errorf("%w (%s)", errNoHome, k)
	}
	home, ok := m.place(hrefs)
	if !ok || len(home) == 0 { // all of the server would be one account's
		return nil, fmt.Errorf("%w (%s): %q", errHomePath, k, hrefs[0])
	}
	return home, nil
}

// boxesIn returns the boxes that a principal's properties name. One that is the home or the principal, or holds one of them, is
// none: it would open more than itself.
func (m *mount) boxesIn(props map[name][]string, found homePaths) (b boxes) {
	box := func(local string) []string {
		path, ok := m.place(props[name{nsCalDAV, local}])
		_, holdsHome := under(path, found.home)
		_, holdsPrincipal := under(path, found.principal)
		if !ok || holdsHome || holdsPrincipal {
			return nil
		}
		return path
	}
	b.inbox, b.outbox = box("schedule-inbox-URL"), box("schedule-outbox-URL")
	if slices.Equal(b.inbox, b.outbox) {
		b.outbox = nil
	}
	for _, href := range props[name{nsCalDAV, "calendar-user-address-set"}] {
		if isMailto(href) {
			b.addresses = append(b.addresses, href)
		}
	}
	return b
}

// place returns the path of the first of several hrefs, if it is one of this backend's.
func (m *mount) place(hrefs []string) ([]string, bool) {
	if len(hrefs) == 0 {
		return nil, false
	}
	segments, _, ok := m.read(nil, hrefs[0])
	return segments, ok
}

// ask asks a principal for what it tells of itself: the hrefs in each property.
func (c *davClient) ask(ctx context.Context, at []string) (map[name][]string, error) {
	resp, err := c.send(ctx, "PROPFIND", at, strings.NewReader(askPrincipal))
	if err != nil {
		return nil, err
	}
	defer discard(resp)
	if resp.StatusCode != http.StatusMultiStatus {
		return nil, &statusError{resp.StatusCode}
	}
	return readHrefs(io.LimitReader(resp.Body, maxMetadata))
}

// supports asks whether the header DAV has a token. A backend that does not answer OPTIONS has none.
func (c *davClient) supports(ctx context.Context, at []string, token string) (bool, error) {
	resp, err := c.send(ctx, "OPTIONS", at, nil)
	if err != nil {
		return false, err
	}
	defer discard(resp)
	for t := range strings.SplitSeq(strings.Join(resp.Header["Dav"], ","), ",") {
		if strings.EqualFold(strings.TrimSpace(t), token) {
			return resp.StatusCode/100 == 2, nil
		}
	}
	return false, nil
}

func (c *davClient) send(ctx context.Context, method string, at []string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, base(c.route)+join(at), body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Depth", "0")
		req.Header.Set("Content-Type", xmlType)
	}
	return c.do(c.route, req)
}

// readHrefs reads an answer about one resource: the hrefs in the properties that are there.
func readHrefs(r io.Reader) (map[name][]string, error) {
	found := make(map[name][]string)
	var (
		tokens = newTokenizer(r)
		read   map[name][]string // of the propstat that is being read
		status string
	)
	defer tokens.free()
	for {
		tok, err := tokens.next()
		if err == io.EOF {
			return found, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the answer: %w", err)
		}
		depth := tokens.depth()
		switch {
		case tok.kind == startToken && depth == 1 && tok.word != davMultistatus:
			return nil, errRoot
		case tok.kind == startToken && depth == 3 && tok.word == davPropstat:
			read, status = make(map[name][]string), ""
		case tok.kind == textToken && depth == 4 && tokens.parent(0).word == davStatus:
			status += string(tok.appendText(nil))
		case tok.kind == endToken && depth == 2 && tok.word == davPropstat:
			if _, code, _ := strings.Cut(status, " "); strings.HasPrefix(code, "2") {
				maps.Copy(found, read)
			}
		case tok.kind == startToken && depth == 6 && tok.word == davHref && tokens.parent(2).word == davProp:
			property := tokens.parent(1).name
			var h href
			if err := h.read(tokens, tok); err != nil {
				return nil, err
			}
			if read != nil {
				read[property] = append(read[property], string(h.text))
			}
		}
	}
}

// isMailto tells whether an href is a mail address: it leads nowhere at a backend.
func isMailto(href string) bool { return len(href) > 7 && strings.EqualFold(href[:7], "mailto:") }

// decoded takes a path apart that has no escapes.
func decoded(path string) ([]string, error) {
	var segments []string
	for s := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if s == "" && strings.Trim(path, "/") == "" {
			break
		}
		if !plain(s) {
			return nil, errPath
		}
		segments = append(segments, s)
	}
	return segments, nil
}
