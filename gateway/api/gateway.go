package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"postern/authstore"
	"postern/authstore/apitoken"
	"postern/gateway/view"
)

// Health is how the gateway is.
type Health struct {
	Version string `json:"version"`
	Ready   bool   `json:"ready" doc:"It takes logins"`
	Why     string `json:"why,omitempty" doc:"Why it takes none"`
}

// KeyList is the root keys.
type KeyList struct {
	Keys []authstore.KeyStatus `json:"keys"`
}

func (s *Server) status(a huma.API) {
	const tag = "gateway"
	register(s, a, operation{id: "health", method: http.MethodGet, path: "/health", tag: tag, summary: "Tell the version, and whether logins are taken"}, s.health)
	register(s, a, operation{id: "show-token", method: http.MethodGet, path: "/token", tag: tag, summary: "Tell of the token that is shown"}, s.showToken)
	register(s, a, operation{id: "list-keys", method: http.MethodGet, path: "/keys", tag: tag, scope: apitoken.KeysRead,
		summary: "List the root keys and what needs them"}, s.listKeys)
}

func (s *Server) health(context.Context, *struct{}) (*body[Health], error) {
	h := Health{Version: s.o.Version, Ready: true}
	if err := s.o.Ready(); err != nil {
		h.Ready, h.Why = false, err.Error()
	}
	return answer(h), nil
}

func (s *Server) showToken(ctx context.Context, _ *struct{}) (*body[view.Token], error) {
	return answer(view.NewToken(callOf(ctx).token)), nil
}

func (s *Server) listKeys(ctx context.Context, _ *struct{}) (*body[KeyList], error) {
	list, err := s.o.Accounts.Keys(ctx)
	if err != nil {
		return nil, err
	}
	return answer(KeyList{list}), nil
}
