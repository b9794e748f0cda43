// Package authstore decides logins: it is the one place that does. Its words (account, app password, scope, grant, refusal) are
// the whole program's. Store verifies and follows the change feed, Accounts changes things; both work on a Truth (a SQL database,
// authstore/sqlstore) and may share a Cache (Redis, authstore/rediscache). Nothing here links a database or speaks a protocol.
package authstore

import (
	"fmt"
	"strings"
)

// Scopes is a set of atomic scopes: what an app password opens. The zero value opens nothing.
// Its numbers stand in the database; new ones are appended.
type Scopes uint16

// The atomic scopes.
const (
	ScopeMail Scopes = 1 << iota
	ScopeMailRead
	ScopeSubmit
	ScopePOP
	ScopeSieve
	ScopeCalendar
	ScopeCalendarRead
	ScopeContacts
	ScopeContactsRead
	ScopeSchedule // invitations and free/busy: the inbox and outbox of RFC 6638
)

// scopeNames holds the name of bit i at place i.
var scopeNames = [...]string{
	"mail", "mail:read", "submit", "pop", "sieve",
	"calendar", "calendar:read", "contacts", "contacts:read", "schedule",
}

// Any reports whether s and t have a scope in common.
func (s Scopes) Any(t Scopes) bool { return s&t != 0 }

// Names lists the scopes in their fixed order.
func (s Scopes) Names() []string {
	var names []string
	for i, name := range scopeNames {
		if s&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

func (s Scopes) String() string { return strings.Join(s.Names(), " ") }

// ParseScopes reads names as Names gives them.
func ParseScopes(names ...string) (Scopes, error) {
	var s Scopes
next:
	for _, name := range names {
		for i, known := range scopeNames {
			if name == known {
				s |= 1 << i
				continue next
			}
		}
		return 0, fmt.Errorf("unknown scope %q; the scopes are %s", name, strings.Join(scopeNames[:], ", "))
	}
	return s, nil
}

// Preset is a named choice of scopes. It is expanded when an app password is made, so a preset that grows later widens nothing.
type Preset struct {
	Name   string // for the command line
	Title  string // for people
	Scopes Scopes
}

// ServedBy reports whether a preset opens what it is for where only some scopes are served. Sending and filters may be missing beside
// mail, and invitations beside calendars: they go with them where they are there.
func (p Preset) ServedBy(served Scopes) bool {
	need := p.Scopes &^ (ScopeSubmit | ScopeSieve | ScopeSchedule)
	if need == 0 {
		need = p.Scopes
	}
	return need&^served == 0
}

// Presets lists what people choose from.
var Presets = []Preset{
	{"everything", "Mail, calendars and contacts", ScopeMail | ScopeSubmit | ScopeSieve | ScopeCalendar | ScopeContacts | ScopeSchedule},
	{"mail", "Mail", ScopeMail | ScopeSubmit | ScopeSieve},
	{"pop", "Mail by POP3", ScopePOP | ScopeSubmit},
	{"send", "Sending mail only", ScopeSubmit},
	{"mail-read", "Mail, read only", ScopeMailRead},
	{"dav", "Calendars and contacts", ScopeCalendar | ScopeContacts | ScopeSchedule},
	{"calendar", "Calendars", ScopeCalendar | ScopeSchedule},
	{"contacts", "Contacts", ScopeContacts},
	{"calendar-read", "Calendars, read only", ScopeCalendarRead},
}
