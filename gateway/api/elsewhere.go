package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"postern/authstore"
	"postern/authstore/apitoken"
	"postern/gateway/directory"
	"postern/gateway/view"
)

// ConnectionList is an account's connections to authorization servers.
type ConnectionList struct {
	Connections []view.Connection `json:"connections"`
}

func (s *Server) upstream(a huma.API) {
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

func (s *Server) directory(a huma.API) {
	const tag = "accounts"
	register(s, a, operation{id: "last-look", method: http.MethodGet, path: "/directory/look", tag: tag, scope: apitoken.AccountsRead,
		summary: "Tell what the last look into the LDAP directory found", problems: []int{http.StatusNotFound, http.StatusConflict}}, s.lastLook)
	register(s, a, operation{id: "look", method: http.MethodPost, path: "/directory/look", tag: tag, scope: apitoken.AccountsWrite,
		summary: "Compare all accounts that are bound to people of the LDAP directory with it, now",
		more: "What the gateway does every look_every: accounts whose people are gone or disabled are suspended, those who are back go on, and where a primary password " +
			"was changed all app passwords are revoked. With a \"problem\" in the answer nothing was changed.",
		problems: []int{http.StatusConflict}, time: importTime}, s.look)
}

func noDirectory() *Problem {
	return problem(http.StatusConflict, "there is no directory here")
}

func (s *Server) lastLook(ctx context.Context, _ *struct{}) (*body[*directory.Report], error) {
	if s.o.Directory == nil {
		return nil, noDirectory()
	}
	r, err := s.o.Directory.Last(ctx)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, problem(http.StatusNotFound, "nobody has looked yet")
	}
	return answer(r), nil
}

type look struct {
	Body *struct {
		DryRun       bool `json:"dry_run,omitempty" doc:"Change nothing, and say what would be done"`
		AcceptLosses bool `json:"accept_losses,omitempty" doc:"Believe it however many are gone, disabled or have another password"`
	}
}

func (s *Server) look(ctx context.Context, in *look) (*body[*directory.Report], error) {
	if s.o.Directory == nil {
		return nil, noDirectory()
	}
	var o directory.LookOptions
	if in.Body != nil {
		o = directory.LookOptions{DryRun: in.Body.DryRun, Accept: in.Body.AcceptLosses}
	}
	r, err := s.o.Directory.Look(ctx, o)
	if err != nil {
		return nil, err
	}
	return answer(r), nil
}
