package portal

import (
	"errors"
	"net/http"

	"postern/authstore/identity"
	"postern/authstore/secret"
)

// home leads to where the person wants to be.
func (s *Server) home(v *visit) error {
	if v.session.Stage == identity.SignedIn {
		return seeOther("/passwords")
	}
	return seeOther("/sign-in")
}

func (s *Server) notFound(v *visit) error {
	v.trouble(http.StatusNotFound, "error.not_found_title", "error.not_found")
	return nil
}

func (s *Server) crossOrigin(v *visit) error {
	v.trouble(http.StatusForbidden, "error.cross_origin_title", "error.cross_origin")
	return nil
}

// signInData is what the template sign_in.html shows.
type signInData struct {
	Address string
	Note    string
}

func (s *Server) signInPage(v *visit) error {
	if v.session.Stage == identity.SignedIn {
		return seeOther("/passwords")
	}
	var d signInData
	switch q := v.r.URL.Query(); {
	case q.Has("ended"):
		d.Note = v.text.Say("sign_in.expired")
	case q.Has("out"):
		d.Note = v.text.Say("sign_in.signed_out")
	}
	return v.form("sign_in.html", d, nil)
}

func (s *Server) signIn(v *visit) error {
	password := []byte(v.r.PostForm.Get("password"))
	defer clear(password)
	d := signInData{Address: v.field("address")}
	if _, err := secret.Parse(password); err == nil { // it has been shown to us by mistake; say so rather than let it count as a guess
		d.Note = v.text.Say("sign_in.app_password")
		return v.form("sign_in.html", d, nil)
	}
	token, session, err := s.o.People.SignIn(v.r.Context(), v.visitor(), d.Address, password)
	if err != nil {
		if errors.Is(err, identity.ErrWrong) {
			v.s.o.Log.Info("sign-in refused", "proto", Protocol, "client", v.s.o.Client(v.r))
		}
		return v.form("sign_in.html", d, err)
	}
	v.enter(token, session)
	return s.afterSignIn(v)
}

// afterSignIn leads on from a step of signing in.
func (s *Server) afterSignIn(v *visit) error {
	switch v.session.Stage {
	case identity.AwaitsFactor:
		return seeOther("/sign-in/factor")
	case identity.AwaitsSetUp:
		return seeOther("/set-up")
	}
	s.o.Log.Info("signed in", "proto", Protocol, "client", s.o.Client(v.r), "account", int64(v.session.Account), "method", v.session.Method)
	return seeOther("/passwords")
}
