package api

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"postern/authstore"
	"postern/authstore/apitoken"
	"postern/gateway/view"
)

// PasswordList is an account's app passwords.
type PasswordList struct {
	Passwords []view.Password `json:"app_passwords"`
}

func (s *Server) passwords(a huma.API) {
	const tag = "app passwords"
	register(s, a, operation{id: "list-passwords", method: http.MethodGet, path: "/accounts/{account}/passwords", tag: tag, scope: apitoken.PasswordsRead,
		summary: "List an account's app passwords", problems: []int{http.StatusNotFound}}, s.listPasswords)
	register(s, a, operation{id: "create-password", method: http.MethodPost, path: "/accounts/{account}/passwords", tag: tag, scope: apitoken.PasswordsWrite,
		summary: "Make an app password", status: http.StatusCreated,
		more:     "The secret is in this answer and in no other. A request that is sent again with the same Idempotency-Key makes no second one: the answer is 409 and names the first.",
		problems: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity, http.StatusBadGateway}}, s.createPassword)
	register(s, a, operation{id: "revoke-all-passwords", method: http.MethodPost, path: "/accounts/{account}/passwords/revoke", tag: tag, scope: apitoken.PasswordsWrite,
		summary: "Revoke all app passwords of an account and end its sessions", problems: []int{http.StatusNotFound}}, s.revokeAll)
	register(s, a, operation{id: "revoke-domain-passwords", method: http.MethodPost, path: "/domains/{domain}/passwords/revoke", tag: tag, scope: apitoken.PasswordsWrite,
		summary: "Revoke all app passwords of a domain's accounts",
		more:    "As many accounts as there is time for; while \"left\" is above 0, ask again."}, s.revokeDomain)
	register(s, a, operation{id: "show-password", method: http.MethodGet, path: "/passwords/{id}", tag: tag, scope: apitoken.PasswordsRead,
		summary: "Show an app password; never its secret", problems: []int{http.StatusNotFound}}, s.showPassword)
	register(s, a, operation{id: "edit-password", method: http.MethodPatch, path: "/passwords/{id}", tag: tag, scope: apitoken.PasswordsWrite,
		summary: "Change an app password's label, expiry or networks", more: "What is absent stays.",
		problems: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity}}, s.editPassword)
	register(s, a, operation{id: "revoke-password", method: http.MethodPost, path: "/passwords/{id}/revoke", tag: tag, scope: apitoken.PasswordsWrite,
		summary: "Revoke an app password and end its sessions", problems: []int{http.StatusNotFound}}, s.revokePassword)
}

type listPasswords struct {
	OnAccount
	Ended bool `query:"ended" doc:"Those that have ended as well"`
}

func (s *Server) listPasswords(ctx context.Context, in *listPasswords) (*body[PasswordList], error) {
	a, err := s.account(ctx, in.Account)
	if err != nil {
		return nil, err
	}
	list, err := s.o.Accounts.Passwords(ctx, a.ID, in.Ended)
	if err != nil {
		return nil, err
	}
	return answer(PasswordList{view.NewPasswords(list)}), nil
}

// NewPassword is an app password that is wanted.
type NewPassword struct {
	Label        string     `json:"label" minLength:"1" maxLength:"100" example:"Thunderbird on the laptop"`
	For          string     `json:"for,omitempty" maxLength:"50" doc:"A preset that says what it opens: those of \"postern password create --help\"" example:"everything"`
	Scopes       []string   `json:"scopes,omitempty" maxItems:"20" maxLength:"50" doc:"What it opens, instead of a preset" example:"[\"mail\",\"submit\"]"`
	Expires      *time.Time `json:"expires,omitempty" doc:"Absent: never"`
	Networks     []string   `json:"networks,omitempty" maxItems:"100" maxLength:"50" doc:"From which it may be used; absent: any" example:"[\"192.0.2.0/24\"]"`
	Collections  []OnlyOf   `json:"collections,omitempty" maxItems:"100" doc:"Single calendars and address books that it opens, which must be there; absent: all"`
	BeyondPolicy bool       `json:"beyond_policy,omitempty" doc:"Make it though the account's policy does not allow its terms"`
}

// OnlyOf names a calendar or an address book.
type OnlyOf struct {
	Kind string `json:"kind" enum:"calendar,contacts"`
	Name string `json:"name" minLength:"1" maxLength:"255" doc:"As list-collections has it; \"*\": all of the kind"`
}

type createPassword struct {
	OnAccount
	Key  string `header:"Idempotency-Key" maxLength:"255" doc:"Names this request, by its sender's own random name"`
	Body NewPassword
}

func unfit(format string, args ...any) *Problem {
	return problem(http.StatusUnprocessableEntity, fmt.Sprintf(format, args...))
}

func (s *Server) createPassword(ctx context.Context, in *createPassword) (*body[view.Password], error) {
	a, err := s.account(ctx, in.Account)
	if err != nil {
		return nil, err
	}
	r := authstore.PasswordRequest{Account: a.ID, Label: in.Body.Label, BeyondPolicy: in.Body.BeyondPolicy, Request: requestName(ctx, in.Key)}
	if r.Scopes, err = chosenScopes(in.Body.For, in.Body.Scopes); err != nil {
		return nil, err
	}
	if r.Networks, err = networks(in.Body.Networks); err != nil {
		return nil, err
	}
	if in.Body.Expires != nil {
		r.Expires = in.Body.Expires.UTC().Truncate(time.Second)
	}
	if r.Collections, r.Titles, err = s.chosenCollections(ctx, a.Names[0], in.Body.Collections); err != nil {
		return nil, err
	}
	p, made, err := s.o.Accounts.As(actor(ctx)).CreatePassword(ctx, r)
	if err != nil {
		return nil, err
	}
	defer made.Clear()
	v, settings := view.NewPassword(p), s.o.Settings(a.Names[0], p.Scopes)
	v.Secret, v.Settings = made.Reveal(), &settings
	return answer(v), nil
}

// requestName is a request's name among those of all programs and of the portal's forms.
func requestName(ctx context.Context, key string) string {
	if key == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(callOf(ctx).token.Name + "\x00" + key))
	return "api " + base64.RawURLEncoding.EncodeToString(sum[:])
}

func chosenScopes(preset string, names []string) (authstore.Scopes, error) {
	if (preset == "") == (len(names) == 0) {
		return 0, unfit("say what it opens, either by \"for\" or by \"scopes\"")
	}
	if preset == "" {
		set, err := authstore.ParseScopes(names...)
		if err == nil && set == authstore.ScopeSchedule {
			err = errors.New("schedule goes with calendars and opens nothing alone; add calendar")
		}
		if err != nil {
			return 0, unfit("%v", err)
		}
		return set, nil
	}
	var known []string
	for _, p := range authstore.Presets {
		if p.Name == preset {
			return p.Scopes, nil
		}
		known = append(known, p.Name)
	}
	return 0, unfit("unknown preset; the presets are %s", strings.Join(known, ", "))
}

func networks(texts []string) ([]netip.Prefix, error) {
	var list []netip.Prefix
	for i, text := range texts {
		p, err := netip.ParsePrefix(text)
		if a, aerr := netip.ParseAddr(text); aerr == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
		}
		if err != nil {
			return nil, unfit("networks[%d] is neither an address nor a network such as 192.0.2.0/24", i)
		}
		list = append(list, p.Masked())
	}
	return list, nil
}

// chosenCollections wants those that are there: a name with a slip in it would open nothing, and nobody would see why.
func (s *Server) chosenCollections(ctx context.Context, address string, only []OnlyOf) ([]authstore.Collection, authstore.Titles, error) {
	var chosen []authstore.Collection
	titles := make(authstore.Titles)
	listed := make(map[string][]view.Collection)
	for i, o := range only {
		c := authstore.Collection{Kind: o.Kind, Name: o.Name}
		chosen = append(chosen, c)
		if o.Name == authstore.EveryCollection {
			continue
		}
		if listed[o.Kind] == nil {
			found, err := s.collections(ctx, address, o.Kind)
			if errors.Is(err, ErrNotServed) {
				return nil, nil, unfit("no backend has collections of the kind %s for %s", o.Kind, address)
			}
			if err != nil {
				return nil, nil, err
			}
			listed[o.Kind] = append([]view.Collection{}, found...)
		}
		at := slices.IndexFunc(listed[o.Kind], func(v view.Collection) bool { return v.Name == o.Name })
		if at < 0 {
			return nil, nil, unfit("collections[%d] is not there; list-collections tells those that are", i)
		}
		if title, err := authstore.CleanLabel(listed[o.Kind][at].Title); err == nil {
			titles[c] = title
		}
	}
	return chosen, titles, nil
}

type why struct {
	Why string `json:"why,omitempty" maxLength:"200" doc:"A reason for the history" example:"phone lost"`
}

type revokeAll struct {
	OnAccount
	Body *why
}

func (w *why) text() (string, error) {
	if w == nil || w.Why == "" {
		return "", nil
	}
	text, err := authstore.CleanLabel(w.Why)
	if err != nil && strings.TrimSpace(w.Why) != "" && len([]rune(w.Why)) > authstore.MaxLabel {
		return "", unfit("the reason has more than %d characters", authstore.MaxLabel)
	}
	if err != nil {
		return "", unfit("the reason must be printable")
	}
	return text, nil
}

func (s *Server) revokeAll(ctx context.Context, in *revokeAll) (*body[view.Confirmation], error) {
	a, err := s.account(ctx, in.Account)
	if err != nil {
		return nil, err
	}
	reason, err := in.Body.text()
	if err != nil {
		return nil, err
	}
	done, err := s.o.Accounts.As(actor(ctx)).RevokeAll(ctx, a.ID, reason)
	return confirmed("revoked all app passwords of "+a.Names[0], done, err)
}

type revokeDomain struct {
	Domain string `path:"domain" minLength:"1" maxLength:"253"`
	Body   *why
}

// DomainRevoked says how far a domain's app passwords were revoked.
type DomainRevoked struct {
	view.Confirmation
	Accounts int `json:"accounts" doc:"How many this request got through"`
	Left     int `json:"left" doc:"Accounts of the domain that have app passwords still"`
}

// revokeTime is how long one request revokes: its answer has to come in time.
const revokeTime = 10 * time.Second

// revokeBatch is how many accounts are looked for at once.
const revokeBatch = 1000

func (s *Server) revokeDomain(ctx context.Context, in *revokeDomain) (*body[DomainRevoked], error) {
	reason, err := in.Body.text()
	if err != nil {
		return nil, err
	}
	open := authstore.AccountQuery{Domain: in.Domain, Open: true, Limit: revokeBatch}
	list, err := s.o.Accounts.Find(ctx, open)
	if err != nil {
		return nil, err
	}
	var ids []authstore.AccountID
	for _, a := range list {
		ids = append(ids, a.ID)
	}
	n, done, err := s.o.Accounts.As(actor(ctx)).RevokeAllOf(ctx, ids, reason, revokeTime)
	if err != nil {
		return nil, err
	}
	left, _, err := s.o.Accounts.Count(ctx, open)
	if err != nil {
		return nil, err
	}
	return answer(DomainRevoked{view.NewConfirmation("revoked all app passwords of "+in.Domain, done), n, left}), nil
}

type OnPassword struct {
	ID int64 `path:"id" minimum:"1" maximum:"9007199254740991"`
}

func (s *Server) password(ctx context.Context, id int64) (authstore.AppPassword, error) {
	p, err := s.o.Accounts.Password(ctx, authstore.PasswordID(id))
	if errors.Is(err, authstore.ErrNotFound) {
		return p, noPassword()
	}
	return p, err
}

func (s *Server) showPassword(ctx context.Context, in *OnPassword) (*body[view.Password], error) {
	p, err := s.password(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return answer(view.NewPassword(p)), nil
}

type editPassword struct {
	OnPassword
	Body struct {
		Label        *string    `json:"label,omitempty" minLength:"1" maxLength:"100"`
		Expires      *time.Time `json:"expires,omitempty"`
		NeverExpires bool       `json:"never_expires,omitempty" doc:"Takes the expiry away"`
		Networks     *[]string  `json:"networks,omitempty" maxItems:"100" maxLength:"50" doc:"An empty list: any"`
	}
}

func (s *Server) editPassword(ctx context.Context, in *editPassword) (*body[view.Confirmation], error) {
	p, err := s.password(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	edit := authstore.PasswordEdit{Label: p.Label, Expires: p.Expires, Networks: p.Networks}
	if in.Body.Label != nil {
		edit.Label = *in.Body.Label
	}
	switch {
	case in.Body.Expires != nil && in.Body.NeverExpires:
		return nil, unfit("expires and never_expires are both there; leave one")
	case in.Body.NeverExpires:
		edit.Expires = time.Time{}
	case in.Body.Expires != nil && in.Body.Expires.Unix() <= 0: // the store would take it for "never"
		return nil, unfit("it would have expired already")
	case in.Body.Expires != nil:
		edit.Expires = *in.Body.Expires
	}
	if in.Body.Networks != nil {
		if edit.Networks, err = networks(*in.Body.Networks); err != nil {
			return nil, err
		}
	}
	done, err := s.o.Accounts.As(actor(ctx)).EditPassword(ctx, p.ID, edit)
	return confirmed(fmt.Sprintf("edited app password %d", p.ID), done, err)
}

type revokePassword struct {
	OnPassword
	Body *why
}

func (s *Server) revokePassword(ctx context.Context, in *revokePassword) (*body[view.Confirmation], error) {
	p, err := s.password(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	reason, err := in.Body.text()
	if err != nil {
		return nil, err
	}
	done, err := s.o.Accounts.As(actor(ctx)).Revoke(ctx, p.ID, reason)
	return confirmed(fmt.Sprintf("revoked app password %d", p.ID), done, err)
}
