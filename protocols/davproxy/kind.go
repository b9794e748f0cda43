package davproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// kind is what a mount or a collection holds.
type kind uint8

const (
	unknown kind = iota
	calendar
	contacts
)

func (k kind) String() string {
	switch k {
	case calendar:
		return "calendar"
	case contacts:
		return "contacts"
	}
	return "unknown"
}

// kindOfType maps an element of DAV:resourcetype.
func kindOfType(n name) kind {
	switch n {
	case name{nsCalDAV, "calendar"}:
		return calendar
	case name{nsCardDAV, "addressbook"}:
		return contacts
	}
	return unknown
}

// errNoCollection says that a backend has no such collection.
var errNoCollection = errors.New("no such collection")

// kindLife is how long a collection's kind is believed. Other gateways and direct clients may change it.
const kindLife = 5 * time.Minute

// kinds remembers what collections are, and only what they are. In a tree that holds both kinds (Radicale, DAViCal, Zimbra) the
// path does not say it, and filtering lists is not enough: a calendar password that knew a contact's path could GET it.
type kinds struct{ cache[kindKey, kind] }

type kindKey struct{ backend, login, path string }

func keyOf(m *mount, t target) kindKey {
	t.place, t.member = collection, ""
	return kindKey{m.route.Backend, m.route.Login, m.inward(t)}
}

// of returns a collection's kind: unknown if it is neither a calendar nor an address book; errNoCollection.
func (ks *kinds) of(ss *session, m *mount, t target) (kind, error) {
	key := keyOf(m, t)
	if k, ok := ks.get(key); ok {
		return k, nil
	}
	k, err := ss.learn(m, key.path)
	if err == nil && k != unknown {
		ks.put(key, k, kindLife)
	}
	return k, err
}

func (ks *kinds) forget(m *mount, t target) { ks.drop(keyOf(m, t)) }

const askType = xmlHeader + `<propfind xmlns="DAV:"><prop><resourcetype/></prop></propfind>`

// learn asks the backend what a collection is.
func (ss *session) learn(m *mount, path string) (kind, error) {
	ctx, cancel := context.WithTimeout(ss.ctx, metadataTime)
	defer cancel()
	req, err := m.request(ctx, "PROPFIND", path, strings.NewReader(askType))
	if err != nil {
		return unknown, err
	}
	req.Header.Set("Depth", "0")
	req.Header.Set("Content-Type", xmlType)
	resp, err := ss.do(m.route, req)
	if err != nil {
		return unknown, err
	}
	defer discard(resp)
	switch resp.StatusCode {
	case http.StatusNotFound, http.StatusGone, http.StatusForbidden:
		return unknown, errNoCollection
	case http.StatusMultiStatus:
		return readKind(io.LimitReader(resp.Body, maxMetadata))
	}
	return unknown, fmt.Errorf("ask for a collection's type: status %d", resp.StatusCode)
}

// readKind reads the answer to askType. What claims to be both is neither.
func readKind(r io.Reader) (kind, error) {
	found := unknown
	tokens := newTokenizer(r)
	for {
		tok, err := tokens.next()
		if err == io.EOF {
			return found, nil
		}
		if err != nil {
			return unknown, fmt.Errorf("read a collection's type: %w", err)
		}
		if tok.kind != startToken || tokens.parent(1) != (name{nsDAV, "resourcetype"}) {
			continue
		}
		if k := kindOfType(tok.name); k != unknown {
			if found != unknown && found != k {
				return unknown, nil
			}
			found = k
		}
	}
}

// cache is a bounded map whose entries die. Where it is full, what comes first goes: any entry can be learned again.
type cache[K comparable, V any] struct {
	mu      sync.Mutex // guards entries
	entries map[K]entry[V]
}

type entry[V any] struct {
	value V
	until time.Time
}

const maxCache = 20_000

func (c *cache[K, V]) get(key K) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
	if !ok || time.Now().After(e.until) {
		return *new(V), false
	}
	return e.value, true
}

func (c *cache[K, V]) put(key K, value V, life time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries == nil {
		c.entries = make(map[K]entry[V])
	}
	for other := range c.entries {
		if len(c.entries) < maxCache {
			break
		}
		delete(c.entries, other)
	}
	c.entries[key] = entry[V]{value, time.Now().Add(life)}
}

func (c *cache[K, V]) drop(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.entries, key)
}
