package portal

import (
	"errors"
	"net/http"
	"net/url"
	"regexp"

	"postern/authstore"
	"postern/authstore/identity"
	"postern/authstore/secret"
)

// home leads to where the person gets on.
func (s *Server) home(v *visit) error {
	switch v.session.Stage {
	case identity.SignedIn:
		return seeOther("/passwords")
	case identity.AwaitsSetUp:
		return seeOther("/set-up")
	case identity.AwaitsFactor:
		return seeOther("/sign-in/factor")
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

// deep are the pages that a link may lead to through the sign-in: notices hold such links.
var deep = regexp.MustCompile(`^/(passwords|security|history|connections|admin)(/[0-9]{1,19})?$`)

// wanted is the page that the person asked for before the sign-in came between; empty: none, or none that may be led to.
func (v *visit) wanted() string {
	to := v.field("to")
	if v.r.Method == http.MethodGet {
		to = v.r.URL.Query().Get("to")
	}
	if !deep.MatchString(to) {
		return ""
	}
	return to
}

// carrying is a step of signing in that remembers a page that was wanted.
func carrying(step seeOther, to string) seeOther {
	if deep.MatchString(to) {
		return step + seeOther("?to="+url.QueryEscape(to))
	}
	return step
}

// signInData is what the template sign_in.html shows.
type signInData struct {
	Address string
	Note    string
	To      string // the page that was wanted
	SignOut string // where to sign out at the provider too; empty: there is no need
}

func (s *Server) signInPage(v *visit) error {
	if v.session.Stage == identity.SignedIn {
		return s.home(v)
	}
	d := signInData{To: v.wanted()}
	switch q := v.r.URL.Query(); {
	case q.Has("ended"):
		d.Note = v.text.Say("sign_in.expired")
	case q.Has("out"):
		d.Note = v.text.Say("sign_in.signed_out")
		d.SignOut = v.signOutThere()
	}
	return v.form("sign_in.html", d, nil)
}

func (s *Server) signIn(v *visit) error {
	password := []byte(v.r.PostForm.Get("password"))
	defer clear(password)
	d := signInData{Address: v.field("address"), To: v.wanted()}
	if _, err := secret.Parse(password); err == nil { // it has been shown to us by mistake; say so rather than let it count as a guess
		return v.form("sign_in.html", d, refused("sign_in.app_password"))
	}
	token, session, err := s.o.People.SignIn(v.r.Context(), v.visitor(), d.Address, password)
	if err != nil {
		s.signInRefused(v, err, 0, "password")
		return v.form("sign_in.html", d, err)
	}
	v.enter(token, session)
	return s.afterSignIn(v, d.To)
}

// signInPasskey is for those who have a passkey, which is both factors at once.
func (s *Server) signInPasskey(v *visit) error {
	token, session, err := s.o.People.GivePasskey(v.r.Context(), v.visitor(), nil, v.r.PostForm.Get("state"), []byte(v.r.PostForm.Get("answer")))
	if err != nil {
		s.signInRefused(v, err, 0, "passkey")
		d := signInData{To: v.wanted()}
		if errors.Is(err, identity.ErrWrongCode) {
			err = refused("sign_in.passkey_failed")
		}
		return v.form("sign_in.html", d, err)
	}
	v.enter(token, session)
	return s.afterSignIn(v, v.wanted())
}

// signInRefused logs an attempt that failed. of is the account where that is known; 0: it is not.
func (s *Server) signInRefused(v *visit, err error, of authstore.AccountID, method string) {
	code := "wrong"
	var many *identity.TooMany
	switch {
	case errors.As(err, &many):
		code = "throttled"
	case errors.Is(err, identity.ErrNeedsInvitation):
		code = "needs_invitation"
	case errors.Is(err, identity.ErrTied):
		code = "tied"
	case errors.Is(err, identity.ErrNobody):
		code = "nobody"
	case !errors.Is(err, identity.ErrWrong) && !errors.Is(err, identity.ErrWrongCode):
		return // not the person's doing; whoever answers it logs it
	}
	// No address: one that is nobody's may be a password that was typed into the wrong field.
	s.o.Log.Info("sign-in refused", "proto", Protocol, "client", s.o.Client(v.r), "account", int64(of), "method", method, "code", code)
}

// afterSignIn leads on from a step of signing in, in the end to the page that was wanted.
func (s *Server) afterSignIn(v *visit, to string) error {
	switch v.session.Stage {
	case identity.AwaitsFactor:
		return carrying("/sign-in/factor", to)
	case identity.AwaitsSetUp:
		return seeOther("/set-up")
	}
	s.signedIn(v)
	if to != "" {
		return seeOther(to)
	}
	return seeOther("/passwords")
}

func (s *Server) signedIn(v *visit) {
	s.o.Log.Info("signed in", "proto", Protocol, "client", s.o.Client(v.r), "account", int64(v.session.Account), "method", v.session.Method)
}

// factorPage asks for the second factor.
func (s *Server) factorPage(v *visit) error {
	if v.session.Stage != identity.AwaitsFactor {
		return s.home(v)
	}
	return v.form("factor.html", v.wanted(), nil)
}

func (s *Server) factor(v *visit) error {
	if v.session.Stage != identity.AwaitsFactor {
		return s.home(v)
	}
	err := v.giveFactor()
	if err != nil {
		s.signInRefused(v, err, v.session.Account, "factor")
		if errors.Is(err, identity.ErrStepUp) {
			err = refused("factor.empty")
		}
		return v.form("factor.html", v.wanted(), err)
	}
	return s.afterSignIn(v, v.wanted())
}

// signOut is also for who got no further than the primary password, and wants to begin again.
func (s *Server) signOut(v *visit) error {
	if v.session.Stage > 0 {
		if err := s.o.People.SignOut(v.r.Context(), v.visitor(), v.session); err != nil && !errors.Is(err, identity.ErrNoSession) {
			return err
		}
		s.o.Log.Info("signed out", "proto", Protocol, "client", s.o.Client(v.r), "account", int64(v.session.Account))
	}
	v.setCookie(sessionCookie, "", -1)
	return seeOther("/sign-in?out")
}
