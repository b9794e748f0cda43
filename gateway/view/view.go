// Package view is how accounts, app passwords and what happened to them look as JSON: the same for --json of the command line and for the
// API, whose document takes the descriptions from here. It holds no rule and reads nothing.
package view

import (
	"net/netip"
	"time"

	"postern/authstore"
	"postern/authstore/apitoken"
	"postern/authstore/identity"
	"postern/gateway/appsettings"
	"postern/gateway/live"
	"postern/gateway/upstreamtoken"
)

// Account is one person's account.
type Account struct {
	ID          int64     `json:"id"`
	PublicID    string    `json:"public_id" doc:"Ten letters that stand for the account in URLs of calendars and address books"`
	Status      string    `json:"status" doc:"\"active\", \"suspended\" by an administrator, or \"gone\": suspended because the directory no longer has it"`
	Admin       bool      `json:"administrator" doc:"May administer at the portal by a mark of the account's own; others may by a group"`
	Names       []string  `json:"names" doc:"Login names; the first is the address that the account was made with, the others are its aliases"`
	BackendName string    `json:"backend_name,omitempty" doc:"Its name towards backends; absent: the backend's template decides"`
	Created     time.Time `json:"created"`
	Passwords   int       `json:"active_app_passwords"`
}

// NewAccount shows an account.
func NewAccount(a authstore.Account) Account {
	return Account{int64(a.ID), a.PublicID, a.Status.String(), a.Admin, a.Names, a.BackendName, a.Created.UTC(), a.Passwords}
}

// AccountDetail is an account with how its owner signs in at the portal, and its latest history.
type AccountDetail struct {
	Account
	Ties   []Tie   `json:"ties"`
	Portal *Portal `json:"portal,omitempty" doc:"How its owner signs in; absent: there is no portal"`
	Events []Event `json:"events" doc:"The latest 20 lines of its history, newest first; in the API only for who may read them"`
}

// Tie binds an account to a person at another server.
type Tie struct {
	Issuer  string    `json:"issuer" doc:"The URL of an OpenID Connect issuer, or \"ldap\""`
	Subject string    `json:"subject" doc:"What names the person there for ever"`
	Groups  []string  `json:"groups,omitempty" doc:"As last told"`
	Created time.Time `json:"created"`
	Seen    time.Time `json:"seen" doc:"When that server last told of the person"`
}

// NewTies shows what binds an account.
func NewTies(list []identity.Tie) []Tie {
	ties := make([]Tie, 0, len(list))
	for _, t := range list {
		ties = append(ties, Tie{t.Issuer, t.Subject, t.Groups, t.Created, t.Seen})
	}
	return ties
}

// Event is one line of history.
type Event struct {
	ID       int64     `json:"id"`
	At       time.Time `json:"at"`
	Account  int64     `json:"account,omitempty" doc:"Its number, of one that is gone too; absent: it belongs to none"`
	Kind     string    `json:"kind" example:"password.created"`
	Actor    string    `json:"actor" doc:"Who did it: \"portal\" is the person himself" example:"api:keycloak"`
	Client   string    `json:"client,omitempty" doc:"The address from which it was done"`
	Password int64     `json:"app_password,omitempty"`
	Detail   string    `json:"detail,omitempty"`
}

// NewEvents shows lines of history.
func NewEvents(list []authstore.Event) []Event {
	events := make([]Event, 0, len(list))
	for _, e := range list {
		events = append(events, Event{e.ID, e.At.UTC(), int64(e.Account), e.Kind, e.Actor.Name, address(e.Actor.Client), int64(e.Password), e.Detail})
	}
	return events
}

func address(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// Portal is how an account's owner signs in at the portal.
type Portal struct {
	Primary  bool       `json:"primary_password" doc:"A primary password is known: one that was set here, or the last that its server took"`
	Factors  []Factor   `json:"second_factors"`
	Recovery int        `json:"recovery_codes_left"`
	Sessions []SignedIn `json:"sessions" doc:"Browsers that are signed in"`
}

// Factor is a second factor, without its secret.
type Factor struct {
	Kind     string     `json:"kind" doc:"\"totp\" or \"passkey\""`
	Label    string     `json:"label"`
	Created  time.Time  `json:"created"`
	LastUsed *time.Time `json:"last_used,omitempty"`
}

// SignedIn is a browser that is signed in at the portal.
type SignedIn struct {
	Began  time.Time `json:"began"`
	Seen   time.Time `json:"seen"`
	Method string    `json:"method" example:"password totp"`
	Client string    `json:"client"`
	Agent  string    `json:"browser"`
}

// NewPortal shows how an account's owner signs in.
func NewPortal(o identity.Overview) *Portal {
	v := &Portal{Primary: o.Primary, Factors: []Factor{}, Recovery: o.Factors.Recovery, Sessions: []SignedIn{}}
	for _, f := range o.Factors.List {
		v.Factors = append(v.Factors, Factor{string(f.Kind), f.Label, f.Created, orNil(f.LastUsed)})
	}
	for _, s := range o.Sessions {
		v.Sessions = append(v.Sessions, SignedIn{s.Began, s.Seen, s.Method, address(s.Client), s.Agent})
	}
	return v
}

// Password is an app password. Its secret is there once, when it was made.
type Password struct {
	ID       int64      `json:"id"`
	Label    string     `json:"label"`
	Scopes   []string   `json:"scopes" doc:"What it opens"`
	State    string     `json:"state" enum:"active,revoked,expired"`
	Created  time.Time  `json:"created"`
	MadeBy   string     `json:"made_by,omitempty" doc:"The administrator who made it for a device or a shared mailbox; absent: its owner, the command line or the API"`
	Expires  *time.Time `json:"expires,omitempty" doc:"Absent: never"`
	Networks []string   `json:"networks,omitempty" doc:"From which it may be used; absent: any"`
	Revoked  *time.Time `json:"revoked,omitempty"`
	Why      string     `json:"why,omitempty"`
	Last     *LastUse   `json:"last_used,omitempty"`
	Failures int64      `json:"refused,omitempty" doc:"Logins that were refused though the secret was genuine"`
	Secret   string     `json:"secret,omitempty" doc:"Only in the answer that tells of its making"`

	Settings    *Settings    `json:"settings,omitempty" doc:"What to type into the app besides; only in the answer that tells of its making"`
	Collections []Collection `json:"collections,omitempty" doc:"Single calendars and address books that it opens; absent: all"`
}

// Settings are what is typed into an app beside the app password.
type Settings = appsettings.Settings

// LastUse tells when and how an app password was last used.
type LastUse struct {
	At       time.Time `json:"at"`
	Protocol string    `json:"protocol"`
	App      string    `json:"app,omitempty"`
	Network  string    `json:"network"`
	Count    int64     `json:"count" doc:"How often it was used in all"`
}

// NewPassword shows an app password.
func NewPassword(p authstore.AppPassword) Password {
	v := Password{ID: int64(p.ID), Label: p.Label, Scopes: p.Scopes.Names(), State: State(p), Created: p.Created.UTC(), MadeBy: p.MadeBy,
		Expires: orNil(p.Expires), Networks: prefixes(p.Networks), Revoked: orNil(p.Revoked), Why: p.Why, Failures: p.Failures,
		Collections: passwordCollections(p)}
	if p.Last != nil {
		v.Last = &LastUse{p.Last.At.UTC(), p.Last.Protocol, p.Last.App, p.Last.Network.String(), p.Last.Count}
	}
	return v
}

func prefixes(list []netip.Prefix) []string {
	var texts []string
	for _, n := range list {
		texts = append(texts, n.String())
	}
	return texts
}

// NewPasswords shows app passwords.
func NewPasswords(list []authstore.AppPassword) []Password {
	views := make([]Password, 0, len(list))
	for _, p := range list {
		views = append(views, NewPassword(p))
	}
	return views
}

func orNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// State is whether an app password opens anything: "active", "revoked" or "expired".
func State(p authstore.AppPassword) string {
	switch {
	case !p.Revoked.IsZero():
		return "revoked"
	case !p.Expires.IsZero() && !p.Expires.After(time.Now()):
		return "expired"
	}
	return "active"
}

// Collection is a calendar or an address book.
type Collection struct {
	Kind  string `json:"kind" enum:"calendar,contacts"`
	Name  string `json:"name" doc:"As its server has it; \"*\" stands for all of the kind"`
	Title string `json:"title,omitempty"`
}

func passwordCollections(p authstore.AppPassword) []Collection {
	var views []Collection
	for _, c := range p.Collections {
		views = append(views, Collection{c.Kind, c.Name, p.Titles[c]})
	}
	return views
}

// Invitation is a link with which somebody sets up signing in at the portal.
type Invitation struct {
	Address     string    `json:"address"`
	Link        string    `json:"link" doc:"Good once. Whoever has it becomes that person at the portal."`
	Expires     time.Time `json:"expires"`
	SetsPrimary bool      `json:"sets_primary_password"`
	Revokes     int       `json:"revokes_app_passwords" doc:"How many end with it, for a primary password takes the place of another"`
}

// NewInvitation shows a link.
func NewInvitation(link string, i identity.Invitation) Invitation {
	return Invitation{i.Address, link, i.Expires, i.SetsPrimary, i.Revokes}
}

// Confirmation says that something was done, and whether every node has confirmed it.
type Confirmation struct {
	Done        string   `json:"done" doc:"What was done, in words"`
	Sequence    uint64   `json:"sequence" doc:"Its number in the feed of changes"`
	Unconfirmed []string `json:"unconfirmed_nodes" doc:"Gateways that have not confirmed that they know; empty: all have. It is in force everywhere all the same, but connections may be open there."`
}

// NewConfirmation shows how far a change has got.
func NewConfirmation(did string, c authstore.Confirmation) Confirmation {
	return Confirmation{did, c.Sequence, append([]string{}, c.Unconfirmed...)}
}

// Ended says how many sessions were ended.
type Ended struct {
	Ended int `json:"ended"`
}

// PrimaryChanged says what ended because a primary password was changed elsewhere.
type PrimaryChanged struct {
	Confirmation
	Address string `json:"address"`
	Revoked int    `json:"revoked_app_passwords"`
}

// Connection is an account's at an authorization server whose tokens its backends want.
type Connection struct {
	Provider string     `json:"provider" doc:"The name of the [[oauth]] in the configuration"`
	State    string     `json:"state" enum:"none,connected,failed"`
	Needed   bool       `json:"needed" doc:"The account's backends want its tokens"`
	Since    *time.Time `json:"since,omitempty" doc:"When it was last refreshed, or has failed"`
	Failure  string     `json:"failure,omitempty" doc:"A code of the server's"`
}

// NewConnections shows connections.
func NewConnections(list []upstreamtoken.Connection) []Connection {
	views := make([]Connection, 0, len(list))
	for _, c := range list {
		v := Connection{Provider: c.Provider, State: string(c.State), Needed: c.Needed, Failure: c.Code}
		if !c.Since.IsZero() {
			since := c.Since.UTC()
			v.Since = &since
		}
		views = append(views, v)
	}
	return views
}

// Disconnected says that a connection was removed.
type Disconnected struct {
	Done    string `json:"done" doc:"What was done, in words"`
	Revoked bool   `json:"revoked" doc:"The server has taken the tokens back"`
}

// Session is an open connection of an app.
type Session struct {
	ID       string    `json:"id" doc:"As \"conn\" in the log"`
	Account  int64     `json:"account"`
	Address  string    `json:"address"`
	Password int64     `json:"app_password"`
	Protocol string    `json:"protocol"`
	App      string    `json:"app,omitempty"`
	Client   string    `json:"client"`
	Backend  string    `json:"backend"`
	Since    time.Time `json:"since"`
}

// NewSessions shows open connections.
func NewSessions(list []live.Session) []Session {
	views := make([]Session, 0, len(list))
	for _, s := range list {
		views = append(views, Session{s.ID, int64(s.Account), s.Address, int64(s.Password), s.Protocol, s.App, address(s.Client), s.Backend, s.Since.UTC()})
	}
	return views
}

// Token is a bearer token of the API. Its secret is there once, when it was made.
type Token struct {
	Name     string     `json:"name"`
	Scopes   []string   `json:"scopes"`
	Created  time.Time  `json:"created"`
	Expires  *time.Time `json:"expires,omitempty" doc:"Absent: never"`
	LastUsed *time.Time `json:"last_used,omitempty" doc:"To the minute"`
	Secret   string     `json:"secret,omitempty" doc:"Only when it was made"`
}

// NewToken shows a token.
func NewToken(t apitoken.Token) Token {
	v := Token{Name: t.Name, Scopes: []string{}, Created: t.Created, Expires: orNil(t.Expires), LastUsed: orNil(t.LastUsed)}
	for _, s := range t.Scopes {
		v.Scopes = append(v.Scopes, string(s))
	}
	return v
}

// Import is what an import of accounts does, or did.
type Import struct {
	Done      bool         `json:"done" doc:"False: nothing was changed, for it was a dry run or a line is wrong"`
	Added     int          `json:"added"`
	Changed   int          `json:"changed"`
	Unchanged int          `json:"unchanged"`
	Wrong     int          `json:"wrong"`
	Lines     []ImportLine `json:"lines" doc:"What becomes of the accounts of the list that are not unchanged: first the wrong ones, at most 10000 in all"`
	Left      int          `json:"lines_left_out,omitempty"`
}

// ImportLine is one account of a list.
type ImportLine struct {
	Where   string   `json:"where" example:"line 7"`
	Address string   `json:"address"`
	Outcome string   `json:"outcome" enum:"added,changed,wrong"`
	Changes []string `json:"changes,omitempty" example:"[\"alias al@example.org\"]"`
	Error   string   `json:"error,omitempty"`
}
