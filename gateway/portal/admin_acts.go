package portal

import (
	"net/http"

	"postern/authstore"
	"postern/authstore/identity"
)

// adminDone are the texts of what has just been done, by the word in the query that tells it.
var adminDone = map[string]string{
	"signed_out": "admin.signed_out_done",
	"factors":    "admin.factors_done",
}

// adminAct is something that an administrator does to an account, behind a question.
type adminAct struct {
	name   string // the end of its path, and of its texts' keys
	danger bool
	do     func(v *visit) (authstore.Confirmation, error)
	done   string // the word that tells it on the account's page; empty: a page of its own tells how far it has got
}

var acts = []adminAct{
	{name: "suspend", danger: true, do: func(v *visit) (authstore.Confirmation, error) {
		return v.accounts().Suspend(v.r.Context(), v.of.ID)
	}},
	{name: "resume", do: func(v *visit) (authstore.Confirmation, error) {
		return v.accounts().Resume(v.r.Context(), v.of.ID)
	}},
	{name: "sign-out", done: "signed_out", do: func(v *visit) (authstore.Confirmation, error) {
		_, err := v.s.o.People.SignOutAll(v.r.Context(), v.actor(), v.of.ID)
		return authstore.Confirmation{}, err
	}},
	{name: "reset-factors", danger: true, done: "factors", do: func(v *visit) (authstore.Confirmation, error) {
		return authstore.Confirmation{}, v.s.o.People.ResetFactors(v.r.Context(), v.actor(), v.of.ID)
	}},
}

func (s *Server) actPage(a adminAct) handler {
	return func(v *visit) error { return v.askAct(a, nil) }
}

// askAct says what will happen.
func (v *visit) askAct(a adminAct, problem error) error {
	text := v.text.Say("admin_act." + a.name + ".text")
	if more := "admin_act." + a.name + ".then"; a.name == "reset-factors" {
		switch {
		case v.s.o.People.Vouched():
			more += "_provider"
		case v.s.o.People.ByInvitation():
			more += "_link"
		}
		text += " " + v.text.Say(more)
	}
	return v.form("ask.html", askData{Title: v.text.Say("admin_act."+a.name+".title", v.about().Address), Text: text, Action: v.under() + "/" + a.name,
		Button: v.text.Say("admin_act." + a.name + ".button"), Danger: a.danger, Back: v.under()}, problem)
}

func (s *Server) act(a adminAct) handler {
	return func(v *visit) error {
		if err := v.confirm(); err != nil {
			return v.askAct(a, err)
		}
		c, err := a.do(v)
		if err != nil {
			return err
		}
		v.note("account changed", v.of.ID, "change", a.name)
		if a.done != "" {
			return seeOther(v.under() + "?done=" + a.done)
		}
		return v.adminDone(v.text.Say("admin_act."+a.name+".done", v.about().Address), c)
	}
}

// adminDone says that something is done, and whether that is so everywhere.
func (v *visit) adminDone(title string, c authstore.Confirmation) error {
	d := doneData{Title: title, Text: v.text.Say("admin_done.everywhere"), Back: v.under()}
	if len(c.Unconfirmed) > 0 {
		d.Text = v.unconfirmed(c, "admin_done")
	}
	return v.show(http.StatusOK, "done.html", d, nil)
}

// why is what an administrator gives as the reason for what he does, for the person to read.
func (v *visit) why() (string, error) {
	typed := v.field("reason")
	if typed == "" {
		return "", nil
	}
	why, err := authstore.CleanLabel(typed)
	if err != nil {
		return "", refused("admin.reason_wrong")
	}
	return why, nil
}

func (s *Server) adminRevoke(v *visit) error {
	d, err := s.whatEnds(v)
	if err != nil {
		return err
	}
	d.Reason = v.field("reason")
	why, err := v.why()
	if err == nil {
		err = v.confirm()
	}
	if err != nil {
		return v.form("revoke.html", d, err)
	}
	c, err := v.accounts().Revoke(v.r.Context(), d.ID, why)
	if err != nil {
		return err
	}
	v.note("app password revoked", d.Account, "app_password", int64(d.ID))
	return v.adminDone(v.text.Say("revoke.done_title", d.Label), c)
}

func (s *Server) adminRevokeAllPage(v *visit) error {
	d, err := s.whatAllEnds(v)
	if err != nil {
		return err
	}
	return v.form("revoke_all.html", d, nil)
}

func (s *Server) adminRevokeAll(v *visit) error {
	d, err := s.whatAllEnds(v)
	if err != nil {
		return err
	}
	d.Reason = v.field("reason")
	why, err := v.why()
	if err == nil {
		err = v.confirm()
	}
	if err != nil {
		return v.form("revoke_all.html", d, err)
	}
	c, err := v.accounts().RevokeAll(v.r.Context(), v.of.ID, why)
	if err != nil {
		return err
	}
	v.note("all app passwords revoked", v.of.ID)
	return v.adminDone(v.text.Say("revoke_all.done_title"), c)
}

// inviteData is what the templates admin_invite.html and admin_link.html show.
type inviteData struct {
	Purpose  identity.Purpose // that is chosen
	Purposes []identity.Purpose
	Keeps    bool // primary passwords are kept here
	Link     string
	identity.Invitation
}

func (v *visit) inviteForm() (inviteData, error) {
	if v.s.o.People.Vouched() { // there is nothing that a link could set up
		return inviteData{}, authstore.ErrNotFound
	}
	o, err := v.s.o.People.Overview(v.r.Context(), v.of.ID)
	if err != nil {
		return inviteData{}, err
	}
	d := inviteData{Keeps: v.s.o.People.KeepsPrimary(), Purpose: identity.NewFactor}
	switch {
	case !d.Keeps:
		d.Purposes = []identity.Purpose{identity.NewFactor}
	case !o.Primary:
		d.Purposes, d.Purpose = []identity.Purpose{identity.Begin}, identity.Begin
	default:
		d.Purposes = []identity.Purpose{identity.NewFactor, identity.Begin}
	}
	return d, nil
}

func (s *Server) invitePage(v *visit) error {
	d, err := v.inviteForm()
	if err != nil {
		return err
	}
	return v.form("admin_invite.html", d, nil)
}

func (s *Server) invite(v *visit) error {
	d, err := v.inviteForm()
	if err != nil {
		return err
	}
	known := false
	for _, p := range d.Purposes {
		if string(p) == v.field("purpose") {
			d.Purpose, known = p, true
		}
	}
	if !known {
		return v.form("admin_invite.html", d, refused("admin_invite.missing"))
	}
	if err := v.confirm(); err != nil {
		return v.form("admin_invite.html", d, err)
	}
	secret, i, err := s.o.People.Invite(v.r.Context(), v.actor(), v.of.ID, d.Purpose)
	if err != nil {
		return err
	}
	v.note("invitation made", v.of.ID, "purpose", string(i.Purpose))
	d.Invitation, d.Link = i, s.o.Site+"/invitation/"+secret
	return v.show(http.StatusOK, "admin_link.html", d, nil)
}
