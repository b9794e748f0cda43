package portal

import (
	"encoding/json"
	"errors"
	"net/http"

	"postern/authstore"
	"postern/authstore/identity"
)

// ceremony is what the script gets to ask the browser with, or what it shows instead.
type ceremony struct {
	Options json.RawMessage `json:"options,omitempty"`
	State   string          `json:"state,omitempty"`
	Problem string          `json:"problem,omitempty"` // in the reader's words; empty: the page has some
}

// asks makes a handler for the script, which can't be led to another page.
func (s *Server) asks(ask func(*visit) (identity.Ceremony, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := s.newVisit(w, r)
		var c identity.Ceremony
		err := v.identify(0)
		if err == nil {
			c, err = ask(v)
		}
		status, answer := http.StatusOK, ceremony{Options: c.Options, State: c.State}
		if err != nil {
			status, answer = v.askFailed(err)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(answer)
	})
}

// askFailed tells why there is no challenge.
func (v *visit) askFailed(err error) (int, ceremony) {
	var many *identity.TooMany
	switch {
	case errors.Is(err, identity.ErrNoSession), errors.Is(err, identity.ErrStepUp):
		return http.StatusForbidden, ceremony{Problem: v.text.Say("passkey.late")}
	case errors.Is(err, authstore.ErrNotFound):
		return http.StatusUnprocessableEntity, ceremony{Problem: v.text.Say("passkey.none")}
	case errors.Is(err, identity.ErrNoPasskeys), errors.Is(err, identity.ErrVouched):
		return http.StatusNotImplemented, ceremony{Problem: v.problem(err)}
	case errors.As(err, &many):
		return http.StatusTooManyRequests, ceremony{Problem: v.problem(err)}
	}
	return http.StatusServiceUnavailable, ceremony{Problem: v.text.Say("error.broken", v.broken(err))}
}

// askAnyone is for signing in with a passkey alone.
func (s *Server) askAnyone(v *visit) (identity.Ceremony, error) {
	return s.o.People.Ask(v.r.Context(), nil)
}

// askProof is for the second factor, at the sign-in and later.
func (s *Server) askProof(v *visit) (identity.Ceremony, error) {
	if v.session.Stage == 0 {
		return identity.Ceremony{}, identity.ErrNoSession
	}
	return s.o.People.Ask(v.r.Context(), &v.session)
}

// askNew is for making one.
func (s *Server) askNew(v *visit) (identity.Ceremony, error) {
	if v.session.Stage < identity.AwaitsSetUp {
		return identity.Ceremony{}, identity.ErrNoSession
	}
	return s.o.People.AskNew(v.r.Context(), v.session)
}
