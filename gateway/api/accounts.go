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

// OnAccount names an account in the path.
type OnAccount struct {
	Account string `path:"account" minLength:"1" maxLength:"254" doc:"One of the account's addresses" example:"alice@example.org"`
}

// account finds the one that a path names.
func (s *Server) account(ctx context.Context, address string) (authstore.Account, error) {
	a, err := s.o.Accounts.Get(ctx, address)
	if errors.Is(err, authstore.ErrNotFound) {
		return a, noAccount()
	}
	return a, err
}

// AccountList is a page of accounts.
type AccountList struct {
	Accounts []view.Account `json:"accounts"`
	Next     string         `json:"next,omitempty" doc:"What \"after\" takes for the next page; absent: this is the last"`
}

func (s *Server) accounts(a huma.API) {
	register(s, a, operation{id: "list-accounts", method: http.MethodGet, path: "/accounts", tag: "accounts", scope: apitoken.AccountsRead,
		summary: "List accounts, by their addresses in order"}, s.listAccounts)
	register(s, a, operation{id: "add-account", method: http.MethodPost, path: "/accounts", tag: "accounts", scope: apitoken.AccountsWrite,
		summary: "Add an account", status: http.StatusCreated, problems: []int{http.StatusConflict, http.StatusUnprocessableEntity}}, s.addAccount)
	register(s, a, operation{id: "show-account", method: http.MethodGet, path: "/accounts/{account}", tag: "accounts", scope: apitoken.AccountsRead,
		summary: "Show an account, how its owner signs in, and its latest history",
		more:    "The history is there for a token that has events:read as well.", problems: []int{http.StatusNotFound}}, s.showAccount)
	register(s, a, operation{id: "remove-account", method: http.MethodDelete, path: "/accounts/{account}", tag: "accounts", scope: apitoken.AccountsWrite,
		summary: "Remove an account with its app passwords", more: "Mail, calendars and contacts at the backends are not touched.",
		problems: []int{http.StatusNotFound}},
		s.changes("removed", (*authstore.Accounts).Remove))
	register(s, a, operation{id: "suspend-account", method: http.MethodPost, path: "/accounts/{account}/suspend", tag: "accounts", scope: apitoken.AccountsWrite,
		summary: "Refuse all logins and end all sessions, keeping the app passwords", problems: []int{http.StatusNotFound}},
		s.changes("suspended", (*authstore.Accounts).Suspend))
	register(s, a, operation{id: "resume-account", method: http.MethodPost, path: "/accounts/{account}/resume", tag: "accounts", scope: apitoken.AccountsWrite,
		summary: "Let a suspended account log in again", problems: []int{http.StatusNotFound}},
		s.changes("resumed", (*authstore.Accounts).Resume))
	register(s, a, operation{id: "set-administrator", method: http.MethodPut, path: "/accounts/{account}/administrator", tag: "accounts", scope: apitoken.AdminsWrite,
		summary: "Make an account an administrator's at the portal, or take that back", problems: []int{http.StatusNotFound}}, s.setAdmin)
	register(s, a, operation{id: "store-credential", method: http.MethodPut, path: "/accounts/{account}/credentials/{backend}", tag: "accounts", scope: apitoken.CredentialsWrite,
		summary:  "Store an account's own password at a backend whose credential is \"stored\"",
		problems: []int{http.StatusNotFound, http.StatusUnprocessableEntity}}, s.storeCredential)
	register(s, a, operation{id: "list-collections", method: http.MethodGet, path: "/accounts/{account}/collections", tag: "accounts", scope: apitoken.AccountsRead,
		summary:  "List an account's calendars and address books, as its backend tells of them",
		problems: []int{http.StatusNotFound, http.StatusConflict, http.StatusBadGateway}}, s.listCollections)
}

type listAccounts struct {
	Text   string `query:"text" maxLength:"254" doc:"A part of one of the addresses"`
	Domain string `query:"domain" maxLength:"253" doc:"Of the first address"`
	Status string `query:"status" enum:"active,suspended,gone"`
	After  string `query:"after" maxLength:"254" doc:"\"next\" of the page before"`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}

var statuses = map[string]authstore.Status{"active": authstore.Active, "suspended": authstore.AccountPaused, "gone": authstore.AccountGone}

func (s *Server) listAccounts(ctx context.Context, in *listAccounts) (*body[AccountList], error) {
	list, err := s.o.Accounts.Find(ctx, authstore.AccountQuery{Text: in.Text, Domain: in.Domain, Status: statuses[in.Status], After: in.After, Limit: in.Limit + 1})
	if err != nil {
		return nil, err
	}
	page := AccountList{Accounts: make([]view.Account, 0, len(list))}
	for i, one := range list {
		if i == in.Limit {
			page.Next = list[i-1].Names[0]
			break
		}
		page.Accounts = append(page.Accounts, view.NewAccount(one))
	}
	return answer(page), nil
}

type addAccount struct {
	Body struct {
		Address string `json:"address" minLength:"1" maxLength:"254" example:"alice@example.org"`
	}
}

func (s *Server) addAccount(ctx context.Context, in *addAccount) (*body[view.Account], error) {
	a, err := s.o.Accounts.As(actor(ctx)).Add(ctx, in.Body.Address)
	if err != nil {
		return nil, err
	}
	return answer(view.NewAccount(a)), nil
}

// latest is how many lines of history stand beside an account.
const latest = 20

func (s *Server) showAccount(ctx context.Context, in *OnAccount) (*body[view.AccountDetail], error) {
	a, err := s.account(ctx, in.Account)
	if err != nil {
		return nil, err
	}
	person, err := s.o.Truth.Person(ctx, a.ID)
	if err != nil {
		return nil, err
	}
	v := view.AccountDetail{Account: view.NewAccount(a), Ties: view.NewTies(person.Ties), Events: []view.Event{}}
	if s.o.People != nil {
		o, err := s.o.People.Overview(ctx, a.ID)
		if err != nil {
			return nil, err
		}
		v.Portal = view.NewPortal(o)
	}
	if may(ctx, apitoken.EventsRead) {
		events, err := s.o.Accounts.Events(ctx, authstore.EventQuery{Account: a.ID, Limit: latest})
		if err != nil {
			return nil, err
		}
		v.Events = view.NewEvents(events)
	}
	return answer(v), nil
}

// changes is an operation that a method of Accounts does to an account.
func (s *Server) changes(did string, change func(*authstore.Accounts, context.Context, authstore.AccountID) (authstore.Confirmation, error)) func(context.Context, *OnAccount) (*body[view.Confirmation], error) {
	return func(ctx context.Context, in *OnAccount) (*body[view.Confirmation], error) {
		a, err := s.account(ctx, in.Account)
		if err != nil {
			return nil, err
		}
		done, err := change(s.o.Accounts.As(actor(ctx)), ctx, a.ID)
		return confirmed(did+" "+a.Names[0], done, err)
	}
}

func confirmed(did string, done authstore.Confirmation, err error) (*body[view.Confirmation], error) {
	if err != nil {
		return nil, err
	}
	return answer(view.NewConfirmation(did, done)), nil
}

type setAdmin struct {
	OnAccount
	Body struct {
		Administrator bool `json:"administrator"`
	}
}

func (s *Server) setAdmin(ctx context.Context, in *setAdmin) (*body[view.Confirmation], error) {
	a, err := s.account(ctx, in.Account)
	if err != nil {
		return nil, err
	}
	did := a.Names[0] + " is no administrator any more"
	if in.Body.Administrator {
		did = "made " + a.Names[0] + " an administrator"
	}
	done, err := s.o.Accounts.As(actor(ctx)).SetAdmin(ctx, a.ID, in.Body.Administrator)
	return confirmed(did, done, err)
}

type storeCredential struct {
	OnAccount
	Backend string `path:"backend" minLength:"1" maxLength:"100" doc:"Its name in the configuration"`
	Body    struct {
		Password string `json:"password" minLength:"1" maxLength:"4096" writeOnly:"true"`
	}
}

func (s *Server) storeCredential(ctx context.Context, in *storeCredential) (*body[Done], error) {
	a, err := s.account(ctx, in.Account)
	if err != nil {
		return nil, err
	}
	password := []byte(in.Body.Password)
	defer clear(password)
	if err := s.o.StoreBackendPassword(ctx, actor(ctx), a.ID, in.Backend, password); err != nil {
		return nil, err
	}
	return answer(Done{"stored the password of " + a.Names[0] + " at " + in.Backend}), nil
}

// Done says that something was done.
type Done struct {
	Done string `json:"done" doc:"What was done, in words"`
}

// ErrNotServed: an account has no server for that.
var ErrNotServed = errors.New("no server is configured for that")

// CollectionList is an account's calendars and address books.
type CollectionList struct {
	Collections []view.Collection `json:"collections"`
}

func (s *Server) listCollections(ctx context.Context, in *OnAccount) (*body[CollectionList], error) {
	a, err := s.account(ctx, in.Account)
	if err != nil {
		return nil, err
	}
	list, served := CollectionList{Collections: []view.Collection{}}, false
	for _, kind := range authstore.CollectionKinds(authstore.NarrowedScopes) {
		found, err := s.collections(ctx, a.Names[0], kind)
		if errors.Is(err, ErrNotServed) {
			continue
		}
		if err != nil {
			return nil, err
		}
		served = true
		list.Collections = append(list.Collections, found...)
	}
	if !served {
		return nil, problem(http.StatusConflict, "no backend has calendars or address books of "+a.Names[0])
	}
	return answer(list), nil
}

// collections asks the backend. That it does not answer is told, for it is no defect of ours; what it said is for the log.
func (s *Server) collections(ctx context.Context, address, kind string) ([]view.Collection, error) {
	found, err := s.o.Collections(ctx, address, kind)
	if err != nil && !errors.Is(err, ErrNotServed) {
		s.o.Log.Warn("api", "proto", Protocol, "operation", callOf(ctx).operation, "err", err)
		return nil, problem(http.StatusBadGateway, "the backend does not tell its collections at the moment; \"postern check\" on the gateway says why")
	}
	return found, err
}

// administrators is said of what lets somebody in as another.
const administrators = "The account of an administrator needs the scope admins:write as well."

func (s *Server) names(a huma.API) {
	register(s, a, operation{id: "add-alias", method: http.MethodPost, path: "/accounts/{account}/aliases", tag: "accounts", scope: apitoken.AccountsWrite,
		summary: "Give an account one more login name", more: administrators, problems: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity}}, s.addAlias)
	register(s, a, operation{id: "remove-alias", method: http.MethodDelete, path: "/accounts/{account}/aliases/{alias}", tag: "accounts", scope: apitoken.AccountsWrite,
		summary: "Take a login name away; sessions that used it end", more: "The address that the account was made with stays.", problems: []int{http.StatusNotFound}}, s.removeAlias)
	register(s, a, operation{id: "set-backend-name", method: http.MethodPut, path: "/accounts/{account}/backend-name", tag: "accounts", scope: apitoken.AccountsWrite,
		summary: "Set an account's name towards backends", more: administrators, problems: []int{http.StatusNotFound, http.StatusUnprocessableEntity}}, s.setBackendName)
	register(s, a, operation{id: "add-tie", method: http.MethodPost, path: "/accounts/{account}/ties", tag: "accounts", scope: apitoken.AccountsWrite,
		summary:  "Bind an account to a person at an OpenID Connect provider or in the directory",
		more:     "Who signs in there as that person signs in to this account. The account of an administrator needs admins:write as well.",
		problems: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity}}, s.addTie)
	register(s, a, operation{id: "remove-tie", method: http.MethodDelete, path: "/accounts/{account}/ties", tag: "accounts", scope: apitoken.AccountsWrite,
		summary: "Take back what binds an account to a person elsewhere, and end its sessions at the portal", problems: []int{http.StatusNotFound}}, s.removeTie)
}

type addAlias struct {
	OnAccount
	Body struct {
		Alias string `json:"alias" minLength:"1" maxLength:"254" example:"al@example.org"`
	}
}

func (s *Server) addAlias(ctx context.Context, in *addAlias) (*body[view.Confirmation], error) {
	a, err := s.renamed(ctx, in.Account)
	if err != nil {
		return nil, err
	}
	done, err := s.o.Accounts.As(actor(ctx)).AddAlias(ctx, a.ID, in.Body.Alias)
	return confirmed("added alias "+in.Body.Alias, done, err)
}

type removeAlias struct {
	OnAccount
	Alias string `path:"alias" minLength:"1" maxLength:"254"`
}

func (s *Server) removeAlias(ctx context.Context, in *removeAlias) (*body[view.Confirmation], error) {
	a, err := s.account(ctx, in.Account)
	if err != nil {
		return nil, err
	}
	done, err := s.o.Accounts.As(actor(ctx)).RemoveAlias(ctx, a.ID, in.Alias)
	if errors.Is(err, authstore.ErrNotFound) {
		return nil, problem(http.StatusNotFound, a.Names[0]+" has no such alias; the address that an account was made with stays")
	}
	return confirmed("removed alias "+in.Alias, done, err)
}

type setBackendName struct {
	OnAccount
	Body struct {
		BackendName string `json:"backend_name" maxLength:"254" doc:"Empty: the backend's template decides"`
	}
}

func (s *Server) setBackendName(ctx context.Context, in *setBackendName) (*body[view.Confirmation], error) {
	a, err := s.renamed(ctx, in.Account)
	if err != nil {
		return nil, err
	}
	done, err := s.o.Accounts.As(actor(ctx)).SetBackendName(ctx, a.ID, in.Body.BackendName)
	return confirmed("set the backend name of "+a.Names[0], done, err)
}

type addTie struct {
	OnAccount
	Body struct {
		Issuer  string `json:"issuer" minLength:"1" maxLength:"2000" example:"https://id.example.org/realms/staff" doc:"The URL of an OpenID Connect issuer, or \"ldap\""`
		Subject string `json:"subject" minLength:"1" maxLength:"255" doc:"What names the person there for ever: \"sub\", entryUUID"`
	}
}

func (s *Server) addTie(ctx context.Context, in *addTie) (*body[Done], error) {
	a, err := s.renamed(ctx, in.Account)
	if err == nil {
		err = s.o.Tie(ctx, actor(ctx), a.ID, in.Body.Issuer, in.Body.Subject)
	}
	if err != nil {
		return nil, err
	}
	return answer(Done{"tied " + a.Names[0]}), nil
}

// renamed finds an account that is to get another name or tie: whoever has these signs in to it.
func (s *Server) renamed(ctx context.Context, address string) (authstore.Account, error) {
	a, err := s.account(ctx, address)
	if err == nil {
		err = s.mayBecome(ctx, a.ID)
	}
	return a, err
}

// mayBecome refuses to let somebody in as an administrator for a token that can't make administrators.
func (s *Server) mayBecome(ctx context.Context, id authstore.AccountID) error {
	if may(ctx, apitoken.AdminsWrite) {
		return nil
	}
	of, err := s.o.Truth.Person(ctx, id)
	if err != nil {
		return err
	}
	if of.Admin || s.o.People != nil && s.o.People.Administers(of) {
		return forbidden(apitoken.AdminsWrite)
	}
	return nil
}

type removeTie struct {
	OnAccount
	Issuer string `query:"issuer" required:"true" minLength:"1" maxLength:"2000"`
}

func (s *Server) removeTie(ctx context.Context, in *removeTie) (*body[Done], error) {
	a, err := s.account(ctx, in.Account)
	if err != nil {
		return nil, err
	}
	_, err = identity.Unbind(ctx, s.o.Truth, actor(ctx), a.ID, in.Issuer)
	if errors.Is(err, authstore.ErrNotFound) {
		return nil, problem(http.StatusNotFound, a.Names[0]+" is not tied to anybody there")
	}
	if err != nil {
		return nil, err
	}
	return answer(Done{a.Names[0] + " is not tied to anybody there any more"}), nil
}
