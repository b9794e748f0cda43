package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"postern/authstore"
	"postern/authstore/apitoken"
	"postern/authstore/identity"
	"postern/gateway/live"
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

// SessionList is the open connections of this gateway.
type SessionList struct {
	Sessions []view.Session `json:"sessions"`
	Left     int            `json:"left_out,omitempty" doc:"How many there are besides"`
}

// endTime is how long the answer waits for connections to close.
const endTime = 2 * time.Second

func (s *Server) connections(a huma.API) {
	const tag = "connections"
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

// WantedAccount is an account of an import.
type WantedAccount struct {
	Address     string   `json:"address" minLength:"1" maxLength:"254"`
	Aliases     []string `json:"aliases,omitempty" maxItems:"100" maxLength:"254"`
	BackendName string   `json:"backend_name,omitempty" maxLength:"254"`
	Issuer      string   `json:"issuer,omitempty" maxLength:"2000"`
	Subject     string   `json:"subject,omitempty" maxLength:"255"`
}

func (s *Server) imports(a huma.API) {
	const how = "Accounts that are missing are made, those that are there get what they lack, and nothing is ever taken away: the same list may be sent again. " +
		"Where a line is wrong nothing is done, but with skip_wrong the others are. To change accounts of administrators admins:write is needed as well."
	o := operation{id: "import-accounts", method: http.MethodPost, path: "/import", tag: "accounts", scope: apitoken.AccountsWrite,
		summary: "Add many accounts", more: how, problems: []int{http.StatusUnprocessableEntity}, body: maxImport, time: importTime, large: likeAccounts}
	register(s, a, o, s.importList)
	o.large = func([]byte) error { return nil }
	o.id, o.path, o.summary = "import-csv", "/import/csv", "Add many accounts from a CSV file, as \"postern account import\" reads it"
	register(s, a, o, s.importCSV)
}

type importList struct {
	Body struct {
		Accounts  []WantedAccount `json:"accounts" maxItems:"200000"` // maxWanted
		DryRun    bool            `json:"dry_run,omitempty" doc:"Say what would be done, and do nothing"`
		SkipWrong bool            `json:"skip_wrong,omitempty"`
	}
}

const (
	maxWanted      = 200_000 // accounts of a list
	maxWantedNames = 100     // aliases of one
)

var wantedFields = []json.Token{"address", "aliases", "backend_name", "issuer", "subject"}

// likeAccounts refuses what is no list of accounts, from how it is built alone, at the first thing that is wrong: huma reads a body into maps and
// notes all that is wrong in it, which of a body of nothing but wrong things takes two hundred times its size.
func likeAccounts(text []byte) error {
	var inside []int // how much stands in each list and object that is open: names of fields count as well
	lists := 0
	for d := json.NewDecoder(bytes.NewReader(text)); ; {
		token, err := d.Token()
		if err != nil { // its end, or something for huma to tell of
			return nil
		}
		depth := len(inside)
		if token == json.Delim(']') || token == json.Delim('}') {
			inside = inside[:depth-1]
			continue
		}
		if depth > 0 {
			inside[depth-1]++
		}
		open, opens := token.(json.Delim)
		_, isText := token.(string)
		at := -1 // which account
		if depth > 2 {
			at = inside[1] - 1
		}
		switch {
		case depth == 0, depth == 1 && inside[0] <= 2*3 && !opens: // three fields
		case depth == 1 && open == '[' && lists == 0:
			lists++
		case depth == 2 && open == '{' && inside[1] <= maxWanted:
		case depth == 2 && inside[1] > maxWanted:
			return fmt.Errorf("there are more than %d accounts", maxWanted)
		case depth == 3 && inside[2]%2 == 1 && !slices.Contains(wantedFields, token), depth == 3 && inside[2] > 2*len(wantedFields):
			return fmt.Errorf("accounts[%d] has a field that no account has, or one twice", at)
		case depth == 3 && (isText || open == '['), depth == 4 && isText && inside[3] <= maxWantedNames:
		case depth == 4 && isText:
			return fmt.Errorf("accounts[%d] has more than %d aliases", at, maxWantedNames)
		default:
			return errors.New("it is no list of accounts as the document has it at " + documentPath)
		}
		if opens {
			inside = append(inside, 0)
		}
	}
}

func (s *Server) importList(ctx context.Context, in *importList) (*body[view.Import], error) {
	return s.imported(ctx, Import{List: in.Body.Accounts, DryRun: in.Body.DryRun, SkipWrong: in.Body.SkipWrong})
}

type importCSV struct {
	DryRun    bool   `query:"dry_run" doc:"Say what would be done, and do nothing"`
	SkipWrong bool   `query:"skip_wrong"`
	RawBody   []byte `contentType:"text/csv"`
}

func (s *Server) importCSV(ctx context.Context, in *importCSV) (*body[view.Import], error) {
	if in.RawBody == nil {
		in.RawBody = []byte{}
	}
	return s.imported(ctx, Import{CSV: in.RawBody, DryRun: in.DryRun, SkipWrong: in.SkipWrong})
}

func (s *Server) imported(ctx context.Context, i Import) (*body[view.Import], error) {
	i.Administrators = may(ctx, apitoken.AdminsWrite)
	v, err := s.o.Import(ctx, actor(ctx), i)
	if err != nil {
		return nil, err
	}
	return answer(v), nil
}

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
