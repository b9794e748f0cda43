package portal

import (
	"errors"
	"net/http"

	"postern/authstore"
	"postern/authstore/identity"
)

// primaryData is what the templates primary.html and primary_changed.html show.
type primaryData struct {
	Ends   []authstore.AppPassword // the app passwords that end with the old primary password
	Silent int                     // nodes that have not confirmed yet
	Waited bool                    // they accept nothing any more nevertheless
	Stale  string                  // how long they may, where an administrator allows that
}

func (s *Server) primaryPage(v *visit) error { return s.askPrimary(v, nil) }

func (s *Server) askPrimary(v *visit, problem error) error {
	if !s.o.People.KeepsPrimary() {
		return authstore.ErrNotFound
	}
	ends, err := v.active()
	if err != nil {
		return err
	}
	return v.form("primary.html", primaryData{Ends: ends}, problem)
}

func (s *Server) changePrimary(v *visit) error {
	ends, err := v.active()
	if err != nil {
		return err
	}
	old, new := []byte(v.r.PostForm.Get("password")), []byte(v.r.PostForm.Get("new"))
	defer clear(old)
	defer clear(new)
	if v.r.PostForm.Get("again") != string(new) {
		return s.askPrimary(v, refused("primary.differ"))
	}
	token, session, c, err := s.o.People.ChangePrimary(v.r.Context(), v.visitor(), v.session, old, new)
	if errors.Is(err, identity.ErrWrong) {
		err = refused("primary.wrong")
	}
	if err != nil {
		return s.askPrimary(v, err)
	}
	v.enter(token, session)
	s.o.Log.Info("primary password changed", "proto", Protocol, "client", s.o.Client(v.r), "account", int64(session.Account))
	d := primaryData{Ends: ends, Silent: len(c.Unconfirmed), Waited: c.Waited}
	if c.Stale > 0 {
		d.Stale = v.wait(c.Stale)
	}
	return v.show(http.StatusOK, "primary_changed.html", d, nil)
}
