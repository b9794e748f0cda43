package portal

import (
	"errors"
	"net/http"

	"postern/authstore/identity"
)

// invitation shows what a link is for. Looking at it does not use it up: mail programs look at links too.
func (s *Server) invitation(v *visit) error {
	i, err := s.o.People.Invitation(v.r.Context(), v.r.PathValue("secret"))
	if err != nil {
		return v.invitationFailed(i, err)
	}
	return v.form("invitation.html", i, nil)
}

// accept uses a link up.
func (s *Server) accept(v *visit) error {
	link := v.r.PathValue("secret")
	i, err := s.o.People.Invitation(v.r.Context(), link)
	if err != nil {
		return v.invitationFailed(i, err)
	}
	password := []byte(v.r.PostForm.Get("password"))
	defer clear(password)
	if i.SetsPrimary && v.r.PostForm.Get("again") != string(password) {
		return v.form("invitation.html", i, refused("primary.differ"))
	}
	token, session, err := s.o.People.Accept(v.r.Context(), v.visitor(), link, password)
	if err != nil {
		return v.invitationFailed(i, err)
	}
	v.enter(token, session)
	s.o.Log.Info("invitation accepted", "proto", Protocol, "client", s.o.Client(v.r), "account", int64(session.Account))
	return s.afterSignIn(v, "")
}

func (v *visit) invitationFailed(i identity.Invitation, err error) error {
	if errors.Is(err, identity.ErrNoInvitation) {
		v.trouble(http.StatusNotFound, "invitation.gone_title", "invitation.gone")
		return nil
	}
	if errors.Is(err, identity.ErrWrong) {
		v.s.signInRefused(v, err, i.Account, "invitation")
		err = refused("invitation.wrong")
	}
	if i.Address == "" { // there is nothing to show the refusal on
		if text := v.problem(err); text != "" {
			v.trouble(http.StatusUnprocessableEntity, "error.unavailable_title", "error.plain", text)
			return nil
		}
	}
	return v.form("invitation.html", i, err)
}
