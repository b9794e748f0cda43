package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"postern/authstore"
	"postern/authstore/apitoken"
	"postern/gateway/view"
)

// ConnectionList is an account's connections to authorization servers.
type ConnectionList struct {
	Connections []view.Connection `json:"connections"`
}

func (s *Server) connections(a huma.API) {
	register(s, a, operation{id: "list-connections", method: http.MethodGet, path: "/accounts/{account}/connections", tag: "accounts", scope: apitoken.AccountsRead,
		summary: "List an account's connections to authorization servers whose tokens its backends want; never a token",
		more:    "An account is connected by its owner, at the portal or with \"postern account connect\".", problems: []int{http.StatusNotFound}}, s.listConnections)
	register(s, a, operation{id: "remove-connection", method: http.MethodDelete, path: "/accounts/{account}/connections/{provider}", tag: "accounts", scope: apitoken.CredentialsWrite,
		summary: "Remove an account's connection to an authorization server, and have its tokens taken back there", more: "App passwords stay.",
		problems: []int{http.StatusNotFound}}, s.removeConnection)
}

func (s *Server) listConnections(ctx context.Context, in *OnAccount) (*body[ConnectionList], error) {
	a, err := s.account(ctx, in.Account)
	if err != nil {
		return nil, err
	}
	list := ConnectionList{Connections: []view.Connection{}}
	if s.o.Upstream != nil {
		found, err := s.o.Upstream.Connections(ctx, a)
		if err != nil {
			return nil, err
		}
		list.Connections = view.NewConnections(found)
	}
	return answer(list), nil
}

type removeConnection struct {
	OnAccount
	Provider string `path:"provider" minLength:"1" maxLength:"100" doc:"The name of the [[oauth]] in the configuration"`
}

func (s *Server) removeConnection(ctx context.Context, in *removeConnection) (*body[view.Disconnected], error) {
	a, err := s.account(ctx, in.Account)
	if err != nil {
		return nil, err
	}
	revoked, err := false, authstore.ErrNotFound
	if s.o.Upstream != nil {
		revoked, err = s.o.Upstream.Disconnect(ctx, actor(ctx), a.ID, in.Provider)
	}
	if errors.Is(err, authstore.ErrNotFound) {
		return nil, problem(http.StatusNotFound, a.Names[0]+" is not connected there")
	}
	if err != nil {
		return nil, err
	}
	return answer(view.Disconnected{Done: "disconnected " + a.Names[0] + " from " + in.Provider, Revoked: revoked}), nil
}
