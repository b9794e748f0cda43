package portal

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"postern/authstore"
	"postern/gateway/live"
)

// soon is how long before its expiry an app password is marked.
const soon = 14 * 24 * time.Hour

// entry is one app password as the pages show it.
type entry struct {
	authstore.AppPassword
	Live  int    // sessions of apps on this node
	Under string // where its pages lie, without "/passwords"; empty: among a person's own
}

func (v *visit) entry(p authstore.AppPassword, live int) entry { return entry{p, live, v.under()} }

// Path is its page.
func (e entry) Path() string { return e.Under + "/passwords/" + strconv.FormatInt(int64(e.ID), 10) }

// Revoked reports whether somebody has ended it.
func (e entry) IsRevoked() bool { return !e.Revoked.IsZero() }

// Expired reports whether its time is over.
func (e entry) Expired() bool { return !e.Expires.IsZero() && !e.Expires.After(time.Now()) }

// Active reports whether apps can use it.
func (e entry) Active() bool { return !e.IsRevoked() && !e.Expired() }

// Soon reports whether it expires soon.
func (e entry) Soon() bool {
	return e.Active() && !e.Expires.IsZero() && time.Until(e.Expires) < soon
}

// passwordsData is what the template passwords.html shows.
type passwordsData struct {
	Active    []entry
	Ended     []entry
	ShowEnded bool
	Most      int
}

// Full reports whether no more can be made.
func (d passwordsData) Full() bool { return len(d.Active) >= d.Most }

func (s *Server) passwords(v *visit) error {
	policy, err := v.bounds()
	if err != nil {
		return err
	}
	d := passwordsData{ShowEnded: v.r.URL.Query().Has("ended"), Most: policy.Most()}
	list, err := s.o.Accounts.Passwords(v.r.Context(), v.about().Account, d.ShowEnded)
	if err != nil {
		return err
	}
	open := s.openSessions(v.about().Account)
	slices.Reverse(list) // the newest first
	for _, p := range list {
		e := v.entry(p, open[p.ID])
		if e.Active() {
			d.Active = append(d.Active, e)
		} else {
			d.Ended = append(d.Ended, e)
		}
	}
	return v.show(http.StatusOK, "passwords.html", d, nil)
}

func (s *Server) openSessions(id authstore.AccountID) map[authstore.PasswordID]int {
	open := make(map[authstore.PasswordID]int)
	if s.o.Sessions != nil {
		for _, one := range s.o.Sessions.List(live.Selection{Account: id}) {
			open[one.Password]++
		}
	}
	return open
}

// active are the app passwords that apps can use.
func (v *visit) active() ([]authstore.AppPassword, error) {
	return v.s.o.Accounts.Passwords(v.r.Context(), v.about().Account, false)
}

// password finds the app password that a page's path names.
func (v *visit) password() (authstore.AppPassword, error) {
	id, err := strconv.ParseInt(v.r.PathValue("id"), 10, 64)
	if err != nil {
		return authstore.AppPassword{}, authstore.ErrNotFound
	}
	return v.own(authstore.PasswordID(id))
}

// own reads an app password of the account that the page is about; authstore.ErrNotFound for another's.
func (v *visit) own(id authstore.PasswordID) (authstore.AppPassword, error) {
	p, err := v.s.o.Accounts.Password(v.r.Context(), id)
	if err == nil && p.Account != v.about().Account {
		err = authstore.ErrNotFound
	}
	return p, err
}
