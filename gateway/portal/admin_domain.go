package portal

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"postern/authstore"
)

const (
	domainBatch = 200             // accounts that one request ends the app passwords of
	domainTime  = 5 * time.Second // and how long it goes on to a further one
)

// domainData is what the template admin_domain.html shows.
type domainData struct {
	Domain    string
	Accounts  int // of the domain with something to revoke
	Passwords int // that are active

	Typed, Reason string
	Total         int    // accounts at the beginning; zero: it has not begun
	Result        string // what was done, and how far it has got; empty: it goes on
}

// Done counts the accounts that it got through.
func (d domainData) Done() int { return max(0, d.Total-d.Accounts) }

// Running reports whether it has begun and there is more to do.
func (d domainData) Running() bool { return d.Total > 0 && d.Result == "" }

// count counts what there is to revoke.
func (v *visit) count(d *domainData) (err error) {
	d.Accounts, d.Passwords, err = v.s.o.Accounts.Count(v.r.Context(), authstore.AccountQuery{Domain: d.Domain, Open: true})
	return err
}

func (s *Server) domainPage(v *visit) error {
	var d domainData
	if typed := v.r.URL.Query().Get("domain"); typed != "" {
		d.Domain = canonicalDomain(typed)
		if err := v.count(&d); err != nil {
			return err
		}
	}
	return v.form("admin_domain.html", d, nil)
}

// endDomain revokes the app passwords of a domain's accounts, as many as one request has time for. The page that answers goes on with the rest:
// what is done is written, whatever becomes of it.
func (s *Server) endDomain(v *visit) error {
	d := domainData{Domain: canonicalDomain(v.field("domain")), Typed: v.field("typed"), Reason: v.field("reason")}
	why, err := v.why()
	switch {
	case d.Domain == "":
		return v.form("admin_domain.html", d, refused("admin_domain.missing"))
	case err == nil && canonicalDomain(d.Typed) != d.Domain:
		err = refused("admin_domain.differs")
	}
	if err == nil {
		err = v.confirm()
	}
	if countErr := v.count(&d); countErr != nil {
		return countErr
	}
	if d.Total, _ = strconv.Atoi(v.field("total")); err != nil {
		return v.form("admin_domain.html", d, err)
	}
	d.Total = max(d.Total, d.Accounts)
	list, err := s.o.Accounts.Find(v.r.Context(), authstore.AccountQuery{Domain: d.Domain, Open: true, Limit: s.batch})
	if err != nil {
		return err
	}
	var ids []authstore.AccountID
	for _, a := range list {
		ids = append(ids, a.ID)
	}
	n, c, err := v.accounts().RevokeAllOf(v.r.Context(), ids, why, domainTime)
	s.o.Log.Info("app passwords of a domain revoked", "proto", Protocol, "client", s.o.Client(v.r), "domain", d.Domain, "accounts", n, "administrator", int64(v.session.Account))
	if errors.Is(err, authstore.ErrSignedOut) || errors.Is(err, authstore.ErrNotAdministrator) || errors.Is(err, authstore.ErrUncertain) {
		return err
	}
	if countErr := v.count(&d); countErr != nil {
		return countErr
	}
	if err != nil {
		d.Result = v.text.Say("admin_domain.broken", d.Accounts, v.broken(err))
		return v.show(http.StatusServiceUnavailable, "admin_domain.html", d, nil)
	}
	if d.Accounts > 0 {
		return v.show(http.StatusOK, "admin_domain.html", d, nil)
	}
	if n == 0 { // of what an earlier request has ended, this one has waited for nothing
		if c, err = v.accounts().ConfirmAll(v.r.Context()); err != nil {
			return err
		}
	}
	if d.Result = v.text.Say("admin_done.everywhere"); len(c.Unconfirmed) > 0 {
		d.Result = v.unconfirmed(c, "admin_done")
	}
	return v.show(http.StatusOK, "admin_domain.html", d, nil)
}
