package portal

import (
	"net/http"
	"slices"
	"time"

	"postern/authstore"
	"postern/gateway/live"
)

// recent is how far back a confirmation looks for apps that will be signed out.
const recent = 30 * day

// whyPortal is the reason that stands with what somebody revoked here.
const whyPortal = "in the portal"

// revokeData is what the templates revoke.html and revoke_all.html show.
type revokeData struct {
	entry
	Passwords []entry // those that end with "revoke all"
	Sessions  []live.Session
	Apps      []string // those seen lately
	Reason    string   // that an administrator gives
}

// doneData is what the template done.html shows: what was done, and how far it has got.
type doneData struct {
	Title, Text, More string
	Back              string
}

func (s *Server) revokePage(v *visit) error {
	d, err := s.whatEnds(v)
	if err != nil {
		return err
	}
	return v.form("revoke.html", d, nil)
}

// whatEnds tells what will sign out with one app password.
func (s *Server) whatEnds(v *visit) (revokeData, error) {
	p, err := v.password()
	if err != nil {
		return revokeData{}, err
	}
	d := revokeData{entry: v.entry(p, 0), Sessions: s.sessionsOf(p)}
	d.Apps, err = v.appsSeen(p.ID)
	return d, err
}

// appsSeen lists the apps that an app password let in lately, by the names that they give themselves.
func (v *visit) appsSeen(id authstore.PasswordID) ([]string, error) {
	list, err := v.s.o.Accounts.Usage(v.r.Context(), id)
	if err != nil {
		return nil, err
	}
	var apps []string
	for _, u := range list {
		name := u.App
		if name == "" {
			name = v.text.Say("words.nameless_for", v.protocol(u.Protocol))
		}
		if u.Count > 0 && time.Since(u.Last) < recent && !slices.Contains(apps, name) {
			apps = append(apps, name)
		}
	}
	return apps, nil
}

func (s *Server) revoke(v *visit) error {
	d, err := s.whatEnds(v)
	if err != nil {
		return err
	}
	if err := v.confirm(); err != nil {
		return v.form("revoke.html", d, err)
	}
	c, err := v.accounts().Revoke(v.r.Context(), d.ID, whyPortal)
	if err != nil {
		return err
	}
	s.o.Log.Info("app password revoked", "proto", Protocol, "client", s.o.Client(v.r), "account", int64(d.Account), "app_password", int64(d.ID))
	return v.done(v.text.Say("revoke.done_title", d.Label), c, v.text.Say("revoke.done_more"))
}

func (s *Server) revokeAllPage(v *visit) error {
	d, err := s.whatAllEnds(v)
	if err != nil {
		return err
	}
	return v.form("revoke_all.html", d, nil)
}

func (s *Server) whatAllEnds(v *visit) (revokeData, error) {
	var d revokeData
	list, err := v.active()
	if err != nil {
		return d, err
	}
	open := s.openSessions(v.about().Account)
	for _, p := range list {
		d.Passwords = append(d.Passwords, v.entry(p, open[p.ID]))
		d.Live += open[p.ID]
	}
	return d, nil
}

func (s *Server) revokeAll(v *visit) error {
	d, err := s.whatAllEnds(v)
	if err != nil {
		return err
	}
	if err := v.confirm(); err != nil {
		return v.form("revoke_all.html", d, err)
	}
	c, err := v.accounts().RevokeAll(v.r.Context(), v.session.Account, whyPortal)
	if err != nil {
		return err
	}
	s.o.Log.Info("all app passwords revoked", "proto", Protocol, "client", s.o.Client(v.r), "account", int64(v.session.Account))
	return v.done(v.text.Say("revoke_all.done_title"), c, v.text.Say("revoke_all.done_more"))
}

// done says that something has ended, and whether that is so everywhere.
func (v *visit) done(title string, c authstore.Confirmation, more string) error {
	d := doneData{Title: title, Text: v.text.Say("revoke.everywhere"), More: more, Back: "/passwords"}
	if len(c.Unconfirmed) > 0 {
		d.Text = v.unconfirmed(c, "revoke")
	}
	return v.show(http.StatusOK, "done.html", d, nil)
}

// unconfirmed says what is not known yet of a change, by the cases of authstore.Confirmation. what is "revoke" or "edit".
func (v *visit) unconfirmed(c authstore.Confirmation, what string) string {
	n := len(c.Unconfirmed)
	switch {
	case !c.Waited:
		return v.text.Say(what+".unconfirmed", n)
	case c.Stale > 0:
		return v.text.Say(what+".stale", n, v.wait(c.Stale))
	}
	return v.text.Say(what+".sessions_open", n)
}
