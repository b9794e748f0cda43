package live

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"postern/authstore"
)

// Session describes an open session, for administrators.
type Session struct {
	ID       string               `json:"id"` // "conn" in the log
	Account  authstore.AccountID  `json:"account"`
	Address  string               `json:"address"` // the account's own name
	Password authstore.PasswordID `json:"app_password"`
	Protocol string               `json:"protocol"`
	App      string               `json:"app,omitempty"`
	Client   netip.Addr           `json:"client"`
	Backend  string               `json:"backend"`
	Since    time.Time            `json:"since"`
}

// Selection chooses sessions by what all of its fields say; a zero field says nothing.
type Selection struct {
	ID       string
	Account  authstore.AccountID
	Password authstore.PasswordID
}

func (s Selection) has(one *session) bool {
	return (s.ID == "" || s.ID == one.facts.Conn) && (s.Password == 0 || s.Password == one.grant.Password)
}

// List tells of the chosen sessions, the oldest first.
func (r *Registry) List(sel Selection) []Session {
	list := []Session{}
	for _, s := range r.sessions(sel.Account) {
		if sel.has(s) {
			list = append(list, s.describe())
		}
	}
	slices.SortFunc(list, func(a, b Session) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID)) })
	return list
}

func (s *session) describe() Session {
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	return Session{ID: s.facts.Conn, Account: s.grant.Account, Address: s.grant.Address, Password: s.grant.Password, Protocol: s.facts.Protocol,
		App: s.facts.App, Client: s.facts.Client.Addr(), Backend: s.facts.Backend, Since: s.began}
}

// End ends the chosen sessions and tells how many they were. The channel is closed when they have left.
func (r *Registry) End(sel Selection) (count int, left <-chan struct{}) {
	left = r.review(sel.Account, func(s *session) error {
		if !sel.has(s) {
			return nil
		}
		count++
		return ErrEnded
	})
	return count, left
}

// Each calls tell for each session that is open since before a time.
func (r *Registry) Each(before time.Time, tell func(authstore.Grant, authstore.Use)) {
	for _, s := range r.sessions(0) {
		if one := s.describe(); one.Since.Before(before) {
			tell(*s.grant, authstore.Use{Protocol: one.Protocol, App: one.App})
		}
	}
}
