package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"postern/authstore"
	"postern/authstore/apitoken"
	"postern/authstore/identity"
	"postern/gateway/view"
)

func (s *Server) signIn(a huma.API) {
	const tag = "portal"
	register(s, a, operation{id: "invite", method: http.MethodPost, path: "/accounts/{account}/invitation", tag: tag, scope: apitoken.InvitationsWrite,
		summary: "Make a link with which somebody sets up signing in at the portal", status: http.StatusCreated,
		more:     "The link is good once, for 72 hours; one that was made before is not valid any more. " + administrators,
		problems: []int{http.StatusNotFound, http.StatusConflict}}, s.invite)
	register(s, a, operation{id: "sign-out", method: http.MethodPost, path: "/accounts/{account}/sign-out", tag: tag, scope: apitoken.AccountsWrite,
		summary: "End all of an account's sessions at the portal; apps stay logged in", problems: []int{http.StatusNotFound, http.StatusConflict}}, s.signOut)
	register(s, a, operation{id: "reset-factors", method: http.MethodPost, path: "/accounts/{account}/factors/reset", tag: tag, scope: apitoken.InvitationsWrite,
		summary: "Take away an account's second factors and recovery codes, and end its sessions at the portal",
		more: "The next sign-in sets up new ones; where only a link does that, make one by invite with new_factor. A link that is on its way is not valid any more. " +
			"Apps stay logged in. " + administrators,
		problems: []int{http.StatusNotFound, http.StatusConflict}}, s.resetFactors)
	register(s, a, operation{id: "primary-changed", method: http.MethodPost, path: "/primary-changed", tag: tag, scope: apitoken.PrimaryChanged,
		summary: "Say that somebody's primary password was changed elsewhere",
		more: "All app passwords of the account are revoked, its sessions end, and its owner is told by mail: all of it, or nothing. " +
			"To say it again does no harm. Nobody may say it because a check failed: only because a password was changed.",
		problems: []int{http.StatusNotFound, http.StatusUnprocessableEntity}}, s.primaryChanged)
}

type invite struct {
	OnAccount
	Body *struct {
		NewFactor bool `json:"new_factor,omitempty" doc:"Keep the primary password, which the link then asks for"`
	}
}

func (s *Server) invite(ctx context.Context, in *invite) (*body[view.Invitation], error) {
	if s.o.People == nil {
		return nil, noPortal()
	}
	a, err := s.renamed(ctx, in.Account)
	if err != nil {
		return nil, err
	}
	purpose := identity.Begin
	if in.Body != nil && in.Body.NewFactor {
		purpose = identity.NewFactor
	}
	secret, i, err := s.o.People.Invite(ctx, actor(ctx), a.ID, purpose)
	if err != nil {
		return nil, err
	}
	return answer(view.NewInvitation(s.o.Link(secret), i)), nil
}

func (s *Server) resetFactors(ctx context.Context, in *OnAccount) (*body[Done], error) {
	if s.o.People == nil {
		return nil, noPortal()
	}
	a, err := s.renamed(ctx, in.Account)
	if err == nil {
		err = s.o.People.ResetFactors(ctx, actor(ctx), a.ID)
	}
	if err != nil {
		return nil, err
	}
	return answer(Done{"took away the second factors of " + a.Names[0] + " and ended its sessions at the portal"}), nil
}

func (s *Server) signOut(ctx context.Context, in *OnAccount) (*body[view.Ended], error) {
	if s.o.People == nil {
		return nil, noPortal()
	}
	a, err := s.account(ctx, in.Account)
	if err != nil {
		return nil, err
	}
	n, err := s.o.People.SignOutAll(ctx, actor(ctx), a.ID)
	if err != nil {
		return nil, err
	}
	return answer(view.Ended{Ended: n}), nil
}

type primaryChanged struct {
	Body struct {
		Address string `json:"address,omitempty" maxLength:"254" doc:"One of the account's addresses" example:"alice@example.org"`
		Issuer  string `json:"issuer,omitempty" maxLength:"2000" doc:"With subject, instead of address: who the person is at another server"`
		Subject string `json:"subject,omitempty" maxLength:"255"`
	}
}

func (s *Server) primaryChanged(ctx context.Context, in *primaryChanged) (*body[view.PrimaryChanged], error) {
	b := in.Body
	if (b.Address == "") == (b.Issuer == "") || (b.Issuer == "") != (b.Subject == "") {
		return nil, unfit("name the account either by address, or by issuer and subject")
	}
	var id authstore.AccountID
	var address string
	if b.Address != "" {
		a, err := s.account(ctx, b.Address)
		if err != nil {
			return nil, err
		}
		id, address = a.ID, a.Names[0]
	} else {
		of, err := s.o.Truth.PersonTied(ctx, b.Issuer, b.Subject)
		if errors.Is(err, authstore.ErrNotFound) {
			return nil, problem(http.StatusNotFound, "no account is tied to that person")
		}
		if err != nil {
			return nil, err
		}
		id, address = of.ID, of.Names[0]
	}
	keeps := s.o.People == nil || s.o.People.KeepsPrimary()
	n, done, err := identity.PrimaryChanged(ctx, s.o.Truth, s.o.Accounts, keeps, actor(ctx), id)
	if err != nil {
		return nil, err
	}
	return answer(view.PrimaryChanged{Confirmation: view.NewConfirmation("revoked all app passwords of "+address+" and ended all sessions", done), Address: address, Revoked: n}), nil
}
