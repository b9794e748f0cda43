package davproxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"postern/authstore"
	"postern/protocols"
)

// Bounds of an account's list of collections.
const (
	maxListing = 1 << 20 // of the backend's answer, in bytes
	maxListed  = 1000
	maxTitle   = authstore.MaxLabel // in runes
)

// Errors of a list.
var (
	errManyCollections = fmt.Errorf("it lists more than %d collections", maxListed)
	errLongList        = errors.New("its list of collections is too long")
)

// Listed is a collection as its account's owner knows it.
type Listed struct {
	authstore.Collection
	Title string // as people gave it, cut short; the name where they gave none
}

// Collections asks a backend which calendars or address books an account has there, with the gateway's credential, and sorts them by
// title. Its errors say in plain words what is wrong and what to do, as Probe's do.
func Collections(ctx context.Context, r *protocols.Route, of string) ([]Listed, error) {
	k := calendar
	if of == authstore.ContactsCollection {
		k = contacts
	}
	c, done := directly(r)
	defer done()
	list, err := collections(ctx, c, k)
	if err != nil {
		return nil, Explain(r, err)
	}
	slices.SortFunc(list, func(a, b Listed) int {
		return cmp.Or(cmp.Compare(strings.ToLower(a.Title), strings.ToLower(b.Title)), cmp.Compare(a.Name, b.Name))
	})
	return list, nil
}

// directly is a client of a backend that no session stands behind; done closes its connections.
func directly(r *protocols.Route) (c *davClient, done func()) {
	up := transport(r, silent{}, metadataTime)
	return &davClient{route: r, do: func(r *protocols.Route, req *http.Request) (*http.Response, error) {
		refused, err := authorize(req, r)
		if err != nil {
			return nil, err
		}
		resp, err := up.RoundTrip(req)
		if err == nil && resp.StatusCode == http.StatusUnauthorized && refused != nil {
			refused()
		}
		return resp, err
	}}, up.Close
}

const askListing = xmlHeader + `<propfind xmlns="DAV:"><prop><resourcetype/><displayname/></prop></propfind>`

func collections(ctx context.Context, c *davClient, k kind) ([]Listed, error) {
	paths, err := discover(ctx, c, k)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, metadataTime)
	defer cancel()
	m := &mount{kind: k, route: c.route, principal: paths.principal, home: paths.home}
	req := m.request(ctx, "PROPFIND", join(m.home), asking("1"), hold([]byte(askListing)), int64(len(askListing)))
	resp, err := c.do(c.route, req)
	if err != nil {
		return nil, fmt.Errorf("list the collections: %w", err)
	}
	defer discard(resp)
	if resp.StatusCode != http.StatusMultiStatus {
		return nil, fmt.Errorf("list the collections: %w", &statusError{resp.StatusCode})
	}
	body := &io.LimitedReader{R: resp.Body, N: maxListing}
	list, err := readListing(body, m)
	if err != nil && body.N <= 0 {
		err = errLongList
	}
	if err != nil {
		return nil, fmt.Errorf("list the collections: %w", err)
	}
	return list, nil
}

// listing is one response of a list that is being read.
type listing struct {
	at    target
	place bool // it has an href
	kind  kind
	mixed bool // both kinds at once
	title []byte
}

// readListing reads the answer to askListing. What no app reaches through the gateway is left out: what lies elsewhere, what claims to be
// both kinds, and names that no app password could be narrowed to.
func readListing(r io.Reader, m *mount) ([]Listed, error) {
	var list []Listed
	var one listing
	tokens := newTokenizer(r)
	defer tokens.free()
	for {
		tok, err := tokens.next()
		switch {
		case err == io.EOF:
			return list, nil
		case err != nil:
			return nil, err
		case tok.kind == startToken && tokens.depth() == 1 && tok.word != davMultistatus:
			return nil, errRoot
		case tok.kind == startToken && tokens.depth() == 2:
			one = listing{}
		case tok.kind == endToken && tokens.depth() == 1 && tok.word == davResponse:
			if l, ok := one.listed(m.kind); ok {
				list = append(list, l)
			}
			if len(list) > maxListed {
				return nil, errManyCollections
			}
		default:
			err = one.read(tokens, tok, m)
		}
		if err != nil {
			return nil, err
		}
	}
}

// read takes in what stands inside a response.
func (l *listing) read(tokens *tokenizer, tok *token, m *mount) error {
	switch {
	case tok.kind == startToken && tok.word == davHref && tokens.parent(1).word == davResponse && tokens.depth() == 3:
		var h href
		err := h.read(tokens, tok)
		if err == nil && !l.place {
			l.at, _ = m.outward(string(h.text))
			l.place = true
		}
		return err
	case tok.kind == startToken && tokens.parent(1).word == davResourcetype:
		if k := kindOfType(tok.name); k != unknown {
			l.mixed = l.mixed || l.kind != unknown && l.kind != k
			l.kind = k
		}
	case tok.kind == textToken && tokens.parent(0).name == (name{nsDAV, "displayname"}) && len(l.title) < 8*maxTitle:
		l.title = append(l.title, tok.appendText(nil)...)
	}
	return nil
}

func (l *listing) listed(k kind) (Listed, bool) {
	c, err := authstore.ParseCollection(k.String() + "/" + l.at.collection)
	if l.at.place != collection || l.kind != k || l.mixed || err != nil || c.Name == authstore.EveryCollection {
		return Listed{}, false
	}
	title := strings.Join(strings.Fields(strings.ToValidUTF8(string(l.title), "")), " ")
	if runes := []rune(title); len(runes) > maxTitle {
		title = string(runes[:maxTitle])
	}
	return Listed{c, cmp.Or(title, c.Name)}, true
}
