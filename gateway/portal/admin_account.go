package portal

import (
	"net/http"
	"slices"
	"time"

	"postern/authstore"
	"postern/authstore/identity"
	"postern/gateway/live"
)

// accountData is what the template admin_account.html shows.
type accountData struct {
	authstore.Account
	identity.Overview
	Since    time.Time // when its status was changed last; zero: never
	Own      bool      // the administrator's
	Active   []entry
	Ended    []entry
	Open     []live.Session
	Events   []line
	Done     string
	Vouched  bool // another server vouches for people: there are no primary passwords, and no links
	Path     string
	Most     int
	AuditURL string
}

// Full reports whether no more app passwords can be made.
func (d accountData) Full() bool { return len(d.Active) >= d.Most }

// Factored reports whether there is something to prove oneself with besides the primary password.
func (d accountData) Factored() bool { return len(d.Factors.List) > 0 || d.Factors.Recovery > 0 }

// statusKinds are the events that change a status.
var statusKinds = []string{"account.suspended", "account.resumed", "account.gone", "account.returned"}

func (s *Server) account(v *visit) error {
	ctx, id := v.r.Context(), v.of.ID
	policy, err := v.bounds()
	if err != nil {
		return err
	}
	d := accountData{Account: *v.of, Own: v.isOwn(), Path: v.under(), Vouched: s.o.People.Vouched(), Most: policy.Most(),
		AuditURL: auditData{Account: v.of.Names[0]}.address("/admin/audit", 0)}
	if key, ok := adminDone[v.r.URL.Query().Get("done")]; ok {
		d.Done = v.text.Say(key)
	}
	if d.Overview, err = s.o.People.Overview(ctx, id); err != nil {
		return err
	}
	list, err := s.o.Accounts.Passwords(ctx, id, true)
	if err != nil {
		return err
	}
	named := make(map[authstore.PasswordID]authstore.AppPassword, len(list))
	open := s.openSessions(id)
	slices.Reverse(list) // the newest first
	for _, p := range list {
		named[p.ID] = p
		if e := v.entry(p, open[p.ID]); e.Active() {
			d.Active = append(d.Active, e)
		} else {
			d.Ended = append(d.Ended, e)
		}
	}
	if s.o.Sessions != nil {
		d.Open = s.o.Sessions.List(live.Selection{Account: id})
	}
	changes, err := s.o.Accounts.Events(ctx, authstore.EventQuery{Account: id, Kinds: statusKinds, Limit: 1})
	if err != nil {
		return err
	}
	for _, e := range changes {
		d.Since = e.At
	}
	events, err := s.o.Accounts.Events(ctx, authstore.EventQuery{Account: id, Limit: detailEvents})
	if err != nil {
		return err
	}
	d.Events = v.lines(events, named)
	return v.show(http.StatusOK, "admin_account.html", d, nil)
}

// LabelOf is what an app password of the account is called.
func (d accountData) LabelOf(id authstore.PasswordID) string {
	for _, e := range slices.Concat(d.Active, d.Ended) {
		if e.ID == id {
			return e.Label
		}
	}
	return ""
}
