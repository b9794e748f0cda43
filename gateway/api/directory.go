package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"postern/authstore/apitoken"
	"postern/gateway/directory"
)

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
