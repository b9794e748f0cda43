package portal

import (
	"errors"
	"net/http"
	"net/url"
	"slices"

	"postern/authstore"
	"postern/authstore/identity"
	"postern/gateway/upstreamtoken"
)

// errandConnect is the errand of a person who consents at an authorization server.
const errandConnect = "connect"

// callbackPath is where browsers come back to. It is registered at the authorization servers, letter by letter.
const callbackPath = "/connections/callback"

// connectionsData is what the template connections.html shows.
type connectionsData struct {
	List []upstreamtoken.Connection
	Done string // what has just been done
}

// connectData is what the template connect.html shows.
type connectData struct {
	upstreamtoken.Connection
	As string // the address to sign in with there
}

var connectionsDone = map[string]string{
	"connected": "connections.done_connected",
	"removed":   "connections.done_removed",
	"left":      "connections.done_left",
}

// account is the visitor's, as the stores have it.
func (v *visit) account() (authstore.Account, error) {
	return v.s.o.Accounts.Get(v.r.Context(), v.session.Address)
}

// connections lists the visitor's; none where no backend wants any.
func (v *visit) connections() ([]upstreamtoken.Connection, error) {
	if v.s.o.Connections == nil {
		return nil, nil
	}
	a, err := v.account()
	if err != nil {
		return nil, err
	}
	return v.s.o.Connections.Connections(v.r.Context(), a)
}

func (s *Server) connectionsPage(v *visit) error { return s.showConnections(v, nil) }

func (s *Server) showConnections(v *visit, problem error) error {
	list, err := v.connections()
	if err != nil {
		return err
	}
	if len(list) == 0 && problem == nil && v.r.URL.Query().Get("done") == "" {
		return authstore.ErrNotFound
	}
	d := connectionsData{List: list}
	if key, ok := connectionsDone[v.r.URL.Query().Get("done")]; ok && problem == nil {
		d.Done = v.text.Say(key)
	}
	return v.form("connections.html", d, problem)
}

// connection finds the one that a page's path names; authstore.ErrNotFound for what the account neither has nor needs.
func (v *visit) connection() (upstreamtoken.Connection, error) {
	list, err := v.connections()
	if err != nil {
		return upstreamtoken.Connection{}, err
	}
	i := slices.IndexFunc(list, func(c upstreamtoken.Connection) bool { return c.Provider == v.r.PathValue("provider") })
	if i < 0 {
		return upstreamtoken.Connection{}, authstore.ErrNotFound
	}
	return list[i], nil
}

// connectPage says what comes next, and takes the second factor. The way to the other site is a link: browsers hold a redirect after a form to
// form-action too.
func (s *Server) connectPage(v *visit) error { return s.askConnect(v, nil) }

func (s *Server) connectConfirm(v *visit) error {
	if _, err := v.connection(); err != nil {
		return err
	}
	if err := v.confirm(); err != nil {
		return s.askConnect(v, err)
	}
	return seeOther("/connections/" + url.PathEscape(v.r.PathValue("provider")))
}

func (s *Server) askConnect(v *visit, problem error) error {
	c, err := v.connection()
	if err != nil {
		return err
	}
	a, err := v.account()
	if err != nil {
		return err
	}
	return v.form("connect.html", connectData{c, s.o.Connections.Hint(a, c.Provider)}, problem)
}

// connectGo leads the browser to the authorization server.
func (s *Server) connectGo(v *visit) error {
	c, err := v.connection()
	if err != nil {
		return err
	}
	page := seeOther("/connections/" + url.PathEscape(c.Provider))
	if site := v.r.Header.Get("Sec-Fetch-Site"); site == "cross-site" || site == "same-site" { // nobody is sent there by another's link
		return page
	}
	consent, err := s.o.Connections.NewConsent(c.Provider)
	if err != nil {
		return err
	}
	state, err := s.o.People.BeginErrand(v.r.Context(), v.session, errandConnect, consent)
	if errors.Is(err, identity.ErrStepUp) {
		return page
	}
	if err != nil {
		return err
	}
	a, err := v.account()
	if err != nil {
		return err
	}
	to, err := s.o.Connections.AskPerson(v.r.Context(), consent, s.o.Site+callbackPath, state, s.o.Connections.Hint(a, c.Provider))
	if err != nil {
		s.o.Log.Warn("an authorization server can't be reached", "proto", Protocol, "provider", c.Provider, "err", err)
		return s.showConnections(v, said{"connections.unreachable", []any{c.Title}})
	}
	http.Redirect(v.w, v.r, to, http.StatusSeeOther)
	return nil
}

// callback takes what a browser brings back from an authorization server.
func (s *Server) callback(v *visit) error {
	q := v.r.URL.Query()
	for _, name := range []string{"state", "code", "iss", "error"} {
		if len(q[name]) > 1 { // RFC 6749 section 3.1
			return s.showConnections(v, refused("connections.stale"))
		}
	}
	if s.o.Connections == nil {
		return authstore.ErrNotFound
	}
	var c upstreamtoken.Consent
	err := s.o.People.EndErrand(v.r.Context(), v.visitor(), v.session, errandConnect, q.Get("state"), &c)
	if errors.Is(err, identity.ErrWrongCode) {
		return s.showConnections(v, refused("connections.stale"))
	}
	if err != nil {
		return err
	}
	a, err := v.account()
	if err != nil {
		return err
	}
	err = s.o.Connections.Finish(v.r.Context(), v.actor(), a, c, s.o.Site+callbackPath, upstreamtoken.Return{Code: q.Get("code"), Issuer: q.Get("iss"), Error: q.Get("error")})
	if err == nil {
		return seeOther("/connections?done=connected")
	}
	return s.showConnections(v, s.consentProblem(v, c.Provider, a, err))
}

// consentProblem says why nothing came of a consent. What no form is to blame for stays as it is.
func (s *Server) consentProblem(v *visit, provider string, a authstore.Account, err error) error {
	title := s.o.Connections.Title(provider)
	problem := said{"connections.unreachable", []any{title}}
	if other, ok := errors.AsType[*upstreamtoken.OtherPerson](err); ok {
		problem = said{"connections.other", []any{title, other.Address, s.o.Connections.Hint(a, provider)}}
	} else if denied, ok := errors.AsType[*upstreamtoken.Denied](err); ok && denied.Code == "access_denied" {
		problem = said{"connections.denied", []any{title}}
	} else if ok {
		problem = said{"connections.refused", []any{title}}
	} else if errors.Is(err, upstreamtoken.ErrMixedUp) {
		problem = said{"connections.stale", nil}
	} else if errors.Is(err, upstreamtoken.ErrNoRefresh) {
		problem = said{"connections.refused", []any{title}}
	} else if errors.Is(err, authstore.ErrSignedOut) || errors.Is(err, authstore.ErrUncertain) || errors.Is(err, authstore.ErrNotFound) {
		return err
	}
	s.o.Log.Warn("a consent came to nothing", "proto", Protocol, "provider", provider, "account", int64(v.session.Account), "err", err)
	return problem
}

func (s *Server) disconnectPage(v *visit) error { return s.askDisconnect(v, nil) }

func (s *Server) askDisconnect(v *visit, problem error) error {
	c, err := v.connection()
	if err != nil {
		return err
	}
	if c.State == upstreamtoken.None {
		return seeOther("/connections")
	}
	return v.form("ask.html", askData{Title: v.text.Say("connections.remove_title", c.Title), Text: v.text.Say("connections.remove_text"), Danger: true,
		Button: v.text.Say("connections.remove"), Action: "/connections/" + url.PathEscape(c.Provider) + "/disconnect", Back: "/connections"}, problem)
}

func (s *Server) disconnect(v *visit) error {
	c, err := v.connection()
	if err == nil {
		if err := v.confirm(); err != nil {
			return s.askDisconnect(v, err)
		}
	}
	if err != nil {
		return err
	}
	revoked, err := s.o.Connections.Disconnect(v.r.Context(), v.actor(), v.session.Account, c.Provider)
	switch {
	case errors.Is(err, authstore.ErrNotFound): // sent twice
		return seeOther("/connections?done=removed")
	case err != nil:
		return err
	case revoked:
		return seeOther("/connections?done=removed")
	}
	return seeOther("/connections?done=left")
}

// Connects reports whether the visitor's mailboxes are to be connected, for the menu.
func (p view) Connects() bool {
	return p.In() && p.v.s.o.Connections != nil && p.v.s.o.Connections.Needed(p.v.session.Address)
}

// Unconnected are the connections that the visitor's apps need and that don't work, for the notes on his pages. Where that can't be read, none are told.
func (p view) Unconnected() (list []upstreamtoken.Connection) {
	if !p.Connects() || p.At("/connections") {
		return nil
	}
	all, err := p.v.connections()
	if err != nil {
		p.v.s.o.Log.Warn("connections can't be read", "proto", Protocol, "account", int64(p.v.session.Account), "err", err)
		return nil
	}
	return slices.DeleteFunc(all, func(c upstreamtoken.Connection) bool {
		return !c.Needed || c.State == upstreamtoken.Connected || c.State == upstreamtoken.None && !p.At("/passwords")
	})
}
