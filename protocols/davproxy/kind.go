package davproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// kind is what a mount or a collection holds.
type kind uint8

const (
	unknown kind = iota
	calendar
	contacts
	inbox  // invitations and replies that came (RFC 6638 section 2.2)
	outbox // takes questions for others' free and busy times (RFC 6638 section 2.1)
)

func (k kind) String() string {
	switch k {
	case calendar:
		return "calendar"
	case contacts:
		return "contacts"
	case inbox:
		return "inbox"
	case outbox:
		return "outbox"
	}
	return "unknown"
}

// isBox tells whether a kind is one of those that an account has one of, beside its calendars.
func (k kind) isBox() bool { return k == inbox || k == outbox }

// content is the kind of what lies in a collection of a kind, and of the backend that has it.
func (k kind) content() kind {
	if k.isBox() {
		return calendar
	}
	return k
}

// kindOfType maps an element of DAV:resourcetype.
func kindOfType(n name) kind {
	switch n {
	case name{nsCalDAV, "calendar"}:
		return calendar
	case name{nsCardDAV, "addressbook"}:
		return contacts
	case name{nsCalDAV, "schedule-inbox"}:
		return inbox
	case name{nsCalDAV, "schedule-outbox"}:
		return outbox
	}
	return unknown
}

// errNoCollection says that a backend has no such collection.
var errNoCollection = errors.New("no such collection")

// kindLife is how long a collection's kind is believed. Other gateways and direct clients may change it.
const kindLife = 5 * time.Minute

// kinds remembers what collections are, and only what they are. In a tree that holds both kinds (Radicale, DAViCal, Zimbra) the
// path does not say it, and filtering lists is not enough: a calendar password that knew a contact's path could GET it.
type kinds struct {
	cache[kindKey, kind]
	changes   atomic.Uint64            // counts what may have changed a kind
	uncertain cache[kindKey, struct{}] // what a backend may still be changing
}

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
	before := ks.changes.Load()
	k, err := ss.learn(m, key.path)
	if _, changing := ks.uncertain.get(key); err == nil && k != unknown && !changing {
		ks.putUnless(key, k, kindLife, func() bool { return ks.changes.Load() != before }) // it was asked before the change, maybe
	}
	return k, err
}

// forget is called before and after whatever may change a collection's kind.
func (ks *kinds) forget(m *mount, t target) {
	ks.changes.Add(1)
	ks.drop(keyOf(m, t))
}

// doubt is called where it is not known whether a change was made, or still will be: for a time, nothing is remembered.
func (ks *kinds) doubt(m *mount, t target) { ks.uncertain.put(keyOf(m, t), struct{}{}, kindLife) }

const askType = xmlHeader + `<propfind xmlns="DAV:"><prop><resourcetype/></prop></propfind>`

// asking is the header of a question of our own.
func asking(depth string) http.Header { return http.Header{"Depth": {depth}, "Content-Type": xmlTypes} }

// learn asks the backend what a collection is.
func (ss *session) learn(m *mount, path string) (kind, error) {
	ctx, cancel := context.WithTimeout(ss.ctx, metadataTime)
	defer cancel()
	req := m.request(ctx, "PROPFIND", path, asking("0"), hold([]byte(askType)), int64(len(askType)))
	resp, err := ss.do(m.route, req)
	if err != nil {
		return unknown, err
	}
	defer discard(resp)
	switch resp.StatusCode {
	case http.StatusNotFound, http.StatusGone, http.StatusForbidden, http.StatusMethodNotAllowed: // 405: Cyrus's folder of attachments
		return unknown, errNoCollection
	case http.StatusMultiStatus:
		return readKind(io.LimitReader(resp.Body, maxMetadata))
	}
	return unknown, fmt.Errorf("ask for a collection's type: status %d", resp.StatusCode)
}

// readKind reads the answer to askType. What claims to be of two kinds is of none.
func readKind(r io.Reader) (kind, error) {
	found := unknown
	tokens := newTokenizer(r)
	defer tokens.free()
	for {
		tok, err := tokens.next()
		if err == io.EOF {
			return found, nil
		}
		if err != nil {
			return unknown, fmt.Errorf("read a collection's type: %w", err)
		}
		if tok.kind != startToken || tokens.parent(1).word != davResourcetype {
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
