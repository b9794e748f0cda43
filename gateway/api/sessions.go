package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"postern/authstore/apitoken"
	"postern/gateway/live"
	"postern/gateway/view"
)

// SessionList is the open connections of this gateway.
type SessionList struct {
	Sessions []view.Session `json:"sessions"`
	Left     int            `json:"left_out,omitempty" doc:"How many there are besides"`
}

// endTime is how long the answer waits for connections to close.
const endTime = 2 * time.Second

func (s *Server) sessions(a huma.API) {
	const tag = "sessions"
	register(s, a, operation{id: "list-sessions", method: http.MethodGet, path: "/sessions", tag: tag, scope: apitoken.SessionsRead,
		summary: "List open connections of apps on this gateway", more: "Of calendars and contacts these are the requests under way.",
		problems: []int{http.StatusNotFound}}, s.listSessions)
	register(s, a, operation{id: "end-sessions", method: http.MethodPost, path: "/sessions/end", tag: tag, scope: apitoken.SessionsWrite,
		summary:  "End open connections on this gateway: one, or all of an account or an app password",
		more:     "Apps connect again at once: to keep an app out, revoke its app password; to keep a person out, suspend the account.",
		problems: []int{http.StatusNotFound, http.StatusUnprocessableEntity}}, s.endSessions)
}

type listSessions struct {
	Account  string `query:"account" maxLength:"254" doc:"Only those of this account, by one of its addresses"`
	Password int64  `query:"app_password" minimum:"1" maximum:"9007199254740991" doc:"Only those of this app password"`
	Limit    int    `query:"limit" minimum:"1" maximum:"10000" default:"1000"`
}

func (s *Server) selection(ctx context.Context, id, address string, password int64) (live.Selection, error) {
	sel := live.Selection{ID: id}
	if address != "" {
		a, err := s.account(ctx, address)
		if err != nil {
			return sel, err
		}
		sel.Account = a.ID
	}
	if password != 0 {
		p, err := s.password(ctx, password)
		if err != nil {
			return sel, err
		}
		sel.Password = p.ID
	}
	return sel, nil
}

func (s *Server) listSessions(ctx context.Context, in *listSessions) (*body[SessionList], error) {
	sel, err := s.selection(ctx, "", in.Account, in.Password)
	if err != nil {
		return nil, err
	}
	all := s.o.Sessions.List(sel)
	return answer(SessionList{view.NewSessions(all[:min(len(all), in.Limit)]), max(0, len(all)-in.Limit)}), nil
}

type endSessions struct {
	Body struct {
		ID       string `json:"id,omitempty" maxLength:"100" doc:"One connection"`
		Account  string `json:"account,omitempty" maxLength:"254" doc:"All of this account, by one of its addresses"`
		Password int64  `json:"app_password,omitempty" minimum:"1" maximum:"9007199254740991" doc:"All of this app password"`
	}
}

// SessionsEnded says how many connections were ended.
type SessionsEnded struct {
	Ended int  `json:"ended"`
	Gone  bool `json:"gone" doc:"They are closed; false: they were told to end, and are about to"`
}

func (s *Server) endSessions(ctx context.Context, in *endSessions) (*body[SessionsEnded], error) {
	named := 0
	for _, is := range []bool{in.Body.ID != "", in.Body.Account != "", in.Body.Password != 0} {
		if is {
			named++
		}
	}
	if named != 1 {
		return nil, unfit("name the connections by one of id, account and app_password")
	}
	sel, err := s.selection(ctx, in.Body.ID, in.Body.Account, in.Body.Password)
	if err != nil {
		return nil, err
	}
	n, left := s.o.Sessions.End(sel)
	if n == 0 && in.Body.ID != "" {
		return nil, problem(http.StatusNotFound, "there is no such connection on this gateway")
	}
	e := SessionsEnded{Ended: n}
	select {
	case <-left:
		e.Gone = true
	case <-time.After(endTime):
	case <-ctx.Done():
	}
	return answer(e), nil
}
