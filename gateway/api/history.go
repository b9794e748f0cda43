package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"postern/authstore"
	"postern/authstore/apitoken"
	"postern/gateway/view"
)

// EventList is a page of history.
type EventList struct {
	Events []view.Event `json:"events"`
	Next   int64        `json:"next,omitempty" doc:"What \"before\" takes for the next page; absent: this is the last"`
}

func (s *Server) history(a huma.API) {
	register(s, a, operation{id: "list-events", method: http.MethodGet, path: "/events", tag: "history", scope: apitoken.EventsRead,
		summary: "List the history, newest first", problems: []int{http.StatusNotFound}}, s.listEvents)
}

type listEvents struct {
	Account  string    `query:"account" maxLength:"254" doc:"Only that of this account, by one of its addresses"`
	Number   int64     `query:"account_number" minimum:"1" maximum:"9007199254740991" doc:"Only that of this account, which may be gone"`
	Password int64     `query:"app_password" minimum:"1" maximum:"9007199254740991" doc:"Only that of this app password"`
	Kinds    []string  `query:"kind" maxItems:"20" maxLength:"50" doc:"Only these kinds, or what begins with one that ends in a dot: \"password.\""`
	Actor    string    `query:"actor" maxLength:"300" doc:"Only what this one did" example:"api:keycloak"`
	Since    time.Time `query:"since" doc:"Only what happened then or later"`
	Until    time.Time `query:"until" doc:"and before"`
	Before   int64     `query:"before" minimum:"1" maximum:"9007199254740991" doc:"\"next\" of the page before"`
	Limit    int       `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}

func (s *Server) listEvents(ctx context.Context, in *listEvents) (*body[EventList], error) {
	q := authstore.EventQuery{Account: authstore.AccountID(in.Number), Actor: in.Actor, Kinds: in.Kinds, Password: authstore.PasswordID(in.Password),
		Since: in.Since, Until: in.Until, Before: in.Before, Limit: in.Limit + 1}
	if in.Account != "" {
		a, err := s.account(ctx, in.Account)
		if err != nil {
			return nil, err
		}
		q.Account = a.ID
	}
	list, err := s.o.Accounts.Events(ctx, q)
	if err != nil {
		return nil, err
	}
	page := EventList{}
	if len(list) > in.Limit {
		list = list[:in.Limit]
		page.Next = list[in.Limit-1].ID
	}
	page.Events = view.NewEvents(list)
	return answer(page), nil
}
