// Package api is what programs administer Postern with: JSON over HTTP under /api/v1, described by an OpenAPI document that is made from the
// same Go types as the answers. Whoever asks shows a bearer token; there are no cookies and nothing for browsers. What may be done is decided
// by authstore; how things look stands in gateway/view. The gateway builds a Server and mounts it on its listeners.
package api

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"postern/authstore"
	"postern/authstore/apitoken"
	"postern/authstore/identity"
	"postern/gateway/appsettings"
	"postern/gateway/directory"
	"postern/gateway/live"
	"postern/gateway/upstreamtoken"
	"postern/gateway/view"
)

// Prefix is where the API's paths begin.
const Prefix = "/api/v1"

// Under reports whether a path is the API's.
func Under(path string) bool { return path == Prefix || strings.HasPrefix(path, Prefix+"/") }

// Protocol is the API's name in logs and metrics.
const Protocol = "api"

// Bounds of what programs may take.
const (
	requestTime = 30 * time.Second // a request, with its body and its answer
	importTime  = 10 * time.Minute // of a hundred thousand accounts, or a look into a directory of as many people
	maxBody     = 64 << 10
	maxImport   = 32 << 20
)

// Options are a Server's parts.
type Options struct {
	Tokens   *apitoken.Tokens
	Accounts *authstore.Accounts
	Truth    identity.Truth
	People   *identity.People // nil: there is no portal
	Sessions Sessions
	// Settings tells what an app needs to use an account for some scopes.
	Settings func(address string, scopes authstore.Scopes) appsettings.Settings
	// Link is the portal's address of an invitation's secret.
	Link func(secret string) string
	// Collections lists an account's collections of a kind, as its server tells of them; ErrNotServed where it has none for that.
	Collections func(ctx context.Context, address, kind string) ([]view.Collection, error)
	// StoreBackendPassword seals an account's own password at a backend; *authstore.Unfit where none can be.
	StoreBackendPassword func(ctx context.Context, who authstore.Actor, id authstore.AccountID, backend string, password []byte) error
	// Tie binds an account to a person at another server; identity.ErrTied, *authstore.Unfit where the directory has no such person.
	Tie func(ctx context.Context, who authstore.Actor, id authstore.AccountID, issuer, subject string) error
	// Import plans, and unless it is a dry run does, an import of accounts; *authstore.Unfit where the list can't be read.
	Import func(ctx context.Context, who authstore.Actor, i Import) (view.Import, error)
	// Upstream has the tokens of backends that want OAuth; nil: there are no such backends.
	Upstream Upstream
	// Directory is the LDAP directory that people sign in with; nil: there is none.
	Directory Directory
	// Ready says why the gateway takes no logins now; nil: it does.
	Ready   func() error
	Version string
	// Client tells a program's address, behind trusted proxies too; the zero value where it has none.
	Client func(*http.Request) netip.Addr
	Log    *slog.Logger
	// Observe is told of each answer; nil: nobody.
	Observe func(operation string, status int)
	// Panicked is told of each defect of ours that ended a request; nil: nobody.
	Panicked func(protocol string)
	Now      func() time.Time // nil: time.Now
}

// Sessions are the open connections of apps on this node; gateway/live implements it.
type Sessions interface {
	List(live.Selection) []live.Session
	End(live.Selection) (count int, left <-chan struct{})
}

// Upstream keeps accounts' connections to authorization servers; an *upstreamtoken.Keeper.
type Upstream interface {
	Connections(ctx context.Context, a authstore.Account) ([]upstreamtoken.Connection, error)
	Disconnect(ctx context.Context, who authstore.Actor, id authstore.AccountID, provider string) (revoked bool, err error)
}

// Directory looks who is in the directory still; a *directory.Looker.
type Directory interface {
	Last(ctx context.Context) (*directory.Report, error)
	Look(ctx context.Context, o directory.LookOptions) (*directory.Report, error)
}

// Import is a list of accounts that is wanted, as CSV or as it is.
type Import struct {
	CSV               []byte // nil: List
	List              []WantedAccount
	DryRun, SkipWrong bool
	Administrators    bool // it may change accounts of administrators
}

// Server answers programs. Goroutines may share it.
type Server struct {
	o         Options
	mux       *http.ServeMux
	document  []byte
	bounds    map[string]bound // by the mux's pattern
	importing chan struct{}    // has room for the one large body that is answered
}

// bound is what one request may take.
type bound struct {
	operation string
	scope     apitoken.Scope
	body      int64
	time      time.Duration
	large     func(body []byte) error // see operation
}

// huma has no other way to be told these than its package's variables, and nobody else here uses it.
func init() {
	huma.NewError = newProblem
	huma.DefaultArrayNullable = false // no answer of ours has null for an empty list
	huma.ValidateStrictCasing = true  // "Address" is no field, though encoding/json would take it for "address"
}

// New makes a server.
func New(o Options) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Server{o: o, mux: http.NewServeMux(), bounds: make(map[string]bound), importing: make(chan struct{}, 1)}
	a := humago.New(s.mux, config())
	s.accounts(a)
	s.names(a)
	s.signIn(a)
	s.passwords(a)
	s.sessions(a)
	s.history(a)
	s.imports(a)
	s.connections(a)
	s.directory(a)
	s.status(a)
	var err error
	if s.document, err = json.MarshalIndent(a.OpenAPI(), "", "  "); err != nil {
		panic("api: " + err.Error()) // it is made of our own types
	}
	s.document = append(s.document, '\n')
	return s
}

// Document is the OpenAPI document.
func (s *Server) Document() []byte { return s.document }

const description = `Administration of Postern for programs. Each request shows a bearer token, which an administrator makes with
"postern token create NAME --scope ...". What a token may do is said by its scopes; each operation names the one that it needs.

Errors are problem details (RFC 9457). Fields that are not in this document are refused. Times are RFC 3339, in UTC. Lists come in pages:
"after" takes what "next" was in the answer before.`

// config is what huma is told: JSON and nothing else, no pages, no links in the answers.
func config() huma.Config {
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info:    &huma.Info{Title: "Postern", Version: "1", Description: description},
			Servers: []*huma.Server{{URL: Prefix, Description: "on the listener of [operations], or the portal's; see [api] in the configuration"}},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer",
					Description: "A token of \"postern token create\". Scopes:\n\n" + scopeText()}},
			},
			Tags: []*huma.Tag{{Name: "accounts"}, {Name: "app passwords"}, {Name: "portal"}, {Name: "sessions"}, {Name: "history"}, {Name: "gateway"}},
		},
		Formats:                      map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat}, // "json" is what huma makes of problem+json
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
	}
}

func scopeText() string {
	var b strings.Builder
	for _, s := range apitoken.Scopes {
		b.WriteString("- `" + string(s.Scope) + "`: " + s.For + "\n")
	}
	return b.String()
}

// body is an answer with a body.
type body[T any] struct{ Body T }

func answer[T any](v T) *body[T] { return &body[T]{v} }

// operation is what is said of one besides its types.
type operation struct {
	id, method, path string
	tag, summary     string
	more             string         // in the document
	scope            apitoken.Scope // empty: any token will do
	status           int            // 0: 200
	problems         []int          // besides those that everything has
	body             int64          // 0: maxBody
	time             time.Duration  // 0: requestTime
	// large is of an operation with large bodies, of which one is answered at a time. It refuses a body that would take many times its own
	// size when it is read; nil: none does.
	large func(body []byte) error
}

// register mounts an operation. do is called when the token may do it and the request fits the document.
func register[I, O any](s *Server, a huma.API, o operation, do func(context.Context, *I) (*O, error)) {
	if o.body == 0 {
		o.body = maxBody
	}
	if o.time == 0 {
		o.time = requestTime
	}
	op := huma.Operation{OperationID: o.id, Method: o.method, Path: o.path, Summary: o.summary, Description: o.more, Tags: []string{o.tag},
		DefaultStatus: o.status, MaxBodyBytes: o.body + 1, BodyReadTimeout: o.time,
		Security:  []map[string][]string{{"token": scopesOf(o.scope)}},
		Responses: s.problems(a, o.problems)}
	s.bounds[o.method+" "+o.path] = bound{o.id, o.scope, o.body, o.time, o.large}
	huma.Register(a, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := do(ctx, in)
		if err != nil {
			return nil, s.problem(ctx, err)
		}
		return out, nil
	})
}

func scopesOf(s apitoken.Scope) []string {
	if s == "" {
		return []string{}
	}
	return []string{string(s)}
}
