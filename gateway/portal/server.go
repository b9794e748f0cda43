// Package portal is what people see: they sign in, prove a second factor, and make, look at and revoke their app passwords. It renders
// pages and reads forms; who may sign in is authstore/identity's, what an app password is authstore's. The gateway builds a Server.
package portal

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"postern/authstore"
	"postern/authstore/identity"
	"postern/gateway/api"
	"postern/gateway/appsettings"
	"postern/gateway/live"
	"postern/gateway/oidcsignin"
	"postern/gateway/upstreamtoken"
	"postern/protocols"
)

// Protocol is the portal's name in configuration, logs and metrics.
const Protocol = "portal"

// Bounds of what browsers may take.
const (
	headerTime     = 10 * time.Second
	requestTime    = 30 * time.Second // a request, with its body and its answer
	keepTime       = 30 * time.Second // an idle connection takes a place among those that have not logged in
	maxHeaderBytes = 32 << 10
	maxBody        = 64 << 10 // of a form
	maxStreams     = 32       // at once on an HTTP/2 connection
)

// Options are a Server's parts.
type Options struct {
	People   *identity.People
	Accounts *authstore.Accounts
	Sessions Sessions
	// Provider is where people sign in, called ProviderName on pages; nil: here. People must be vouched for then.
	Provider     *oidcsignin.Provider
	ProviderName string
	// Settings tells what an app needs to use an account for some scopes.
	Settings func(address string, scopes authstore.Scopes) appsettings.Settings
	Served   authstore.Scopes // what the listeners open; nothing else is offered
	// Collections lists an account's collections of a kind, as its server tells of them; ErrNotServed where it has none for that. nil: no
	// kind is served.
	Collections func(ctx context.Context, address, kind string) ([]Collection, error)
	// Connections are those of accounts to authorization servers; nil: no backend wants any.
	Connections *upstreamtoken.Keeper
	Places      Places // nil: nobody knows where an address is
	// Site is the portal's origin, as identity.Options has it.
	Site string
	// Name is what the service is called on every page.
	Name string
	// Longest bounds the life of the app passwords that are made here; zero: they may last for ever.
	Longest time.Duration

	// Client tells a browser's address, behind trusted proxies too.
	Client func(*http.Request) netip.Addr
	// TLS is for Serve; nil: plain text, or a listener that does TLS itself.
	TLS     *tls.Config
	Proxies []netip.Prefix // load balancers that send the PROXY header
	// Limits bound the connections of Serve, which count as ones that have not logged in; nil: nothing does.
	Limits *protocols.Limits
	// TrustedProxies are HTTP proxies in front, whose connections count for no network.
	TrustedProxies protocols.TrustedProxies
	// API answers programs under api.Prefix, past all that is for browsers; nil: it is not here.
	API http.Handler
	Log *slog.Logger
	// Panicked is told of each defect of ours that ended a request; nil: nobody.
	Panicked func(protocol string)
}

// Sessions are the open connections of apps on this node; gateway/live implements it.
type Sessions interface {
	List(live.Selection) []live.Session
}

// Places tells where addresses are; gateway/place implements it.
type Places interface {
	Country(netip.Addr) string // ISO 3166-1; empty: not known
}

// Server serves the portal's pages. Goroutines may share it.
type Server struct {
	o       Options
	site    *url.URL
	handler http.Handler
	pages   pages

	administration []string // the patterns of the pages for administrators
	batch          int      // accounts of a domain that one request ends the app passwords of
}

// New makes a server.
func New(o Options) (*Server, error) {
	site, err := url.Parse(o.Site)
	if err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Name == "" {
		o.Name = site.Hostname()
	}
	s := &Server{o: o, site: site, batch: domainBatch}
	if s.pages, err = parsePages(); err != nil {
		return nil, err
	}
	s.handler = s.guarded(s.routes())
	return s, nil
}

// ServeHTTP answers a request; the connection's limits are the caller's affair.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.o.API != nil && api.Under(r.URL.Path) {
		s.o.API.ServeHTTP(w, r)
		return
	}
	s.handler.ServeHTTP(w, r)
}

// Serve accepts until ctx ends, then waits for the requests that are under way; they go on until life ends.
func (s *Server) Serve(ctx, life context.Context, ln net.Listener) error {
	var newcomers protocols.Newcomers
	srv := &http.Server{
		Handler: s, ConnState: newcomers.State, ReadHeaderTimeout: headerTime, ReadTimeout: requestTime, WriteTimeout: requestTime, IdleTimeout: keepTime,
		MaxHeaderBytes: maxHeaderBytes, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ErrorLog:    slog.NewLogLogger(s.o.Log.Handler(), slog.LevelDebug), // what strangers get wrong
		BaseContext: func(net.Listener) context.Context { return life },
	}
	refusals := &protocols.Refusals{Protocol: Protocol, Log: s.o.Log}
	ln = &protocols.Listener{Listener: ln, Proxies: s.o.Proxies, Refused: refusals.Add, Limits: s.o.Limits, TrustedProxies: s.o.TrustedProxies}
	drained := make(chan struct{})
	defer context.AfterFunc(ctx, func() {
		defer close(drained)
		ln.Close()
		newcomers.Wait(life)
		srv.Shutdown(life)
		srv.Close()
	})()
	serve := srv.Serve
	if s.o.TLS != nil {
		srv.TLSConfig = s.o.TLS.Clone()
		serve = func(ln net.Listener) error { return srv.ServeTLS(ln, "", "") }
	}
	err := serve(ln)
	if ctx.Err() != nil {
		<-drained
	}
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// routes is every page. What ends in a handler of a *visit with a session is behind the sign-in.
func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /assets/", s.asset)
	open := func(pattern string, h handler) { mux.Handle(pattern, s.page(h, 0)) }
	awaits := func(pattern string, h handler) { mux.Handle(pattern, s.page(h, identity.AwaitsFactor)) }
	setUp := func(pattern string, h handler) { mux.Handle(pattern, s.page(h, identity.AwaitsSetUp)) }
	signedIn := func(pattern string, h handler) { mux.Handle(pattern, s.page(h, identity.SignedIn)) }
	fresh := func(path, title string, show, do handler) {
		signedIn("GET "+path, s.fresh(path, title, show))
		signedIn("POST "+path, s.fresh(path, title, do))
	}

	open("GET /{$}", s.home)
	open("GET /sign-in", s.signInPage)
	open("POST /sign-in", s.signIn)
	open("GET /sign-in/passkey", s.home)
	open("POST /sign-in/passkey", s.signInPasskey)
	if s.o.Provider != nil {
		s.providerRoutes(mux)
	}
	awaits("GET /sign-in/factor", s.factorPage)
	awaits("POST /sign-in/factor", s.factor)
	open("GET /sign-out", s.home)
	open("POST /sign-out", s.signOut)
	open("GET /language", s.home)
	open("POST /language", s.language)
	open("GET /invitation/{secret}", s.invitation)
	open("POST /invitation/{secret}", s.accept)
	setUp("GET /set-up", s.setUp)
	setUp("POST /set-up", s.setUpFactor)
	signedIn("POST /set-up/kept", s.kept)
	signedIn("POST /recovery-codes", s.codesFile)
	mux.Handle("POST /passkey/sign-in", s.asks(s.askAnyone))
	mux.Handle("POST /passkey/prove", s.asks(s.askProof))
	mux.Handle("POST /passkey/new", s.asks(s.askNew))

	signedIn("GET /security", s.security)
	signedIn("POST /security", s.reader)
	fresh("/security/app", "factors.new_app", s.newApp, s.addApp)
	fresh("/security/passkey", "factors.new_passkey", s.newPasskey, s.addPasskey)
	signedIn("GET /security/factors/{id}", s.renamePage)
	signedIn("POST /security/factors/{id}", s.rename)
	signedIn("GET /security/factors/{id}/remove", s.gated("confirm.title", s.removePage))
	signedIn("POST /security/factors/{id}/remove", s.removeFactor)
	signedIn("GET /security/recovery", s.gated("codes.renew_title", s.renewPage))
	signedIn("POST /security/recovery", s.renew)
	signedIn("GET /security/sessions/end", s.toSecurity)
	signedIn("POST /security/sessions/end", s.endOthers)
	signedIn("GET /security/sessions/{id}/end", s.toSecurity)
	signedIn("POST /security/sessions/{id}/end", s.endSession)
	fresh("/security/primary", "primary.title", s.primaryPage, s.changePrimary)

	signedIn("GET /passwords", s.passwords)
	signedIn("GET /passwords/new", s.gated("create.title", s.createPage))
	signedIn("POST /passwords/new", s.create)
	signedIn("GET /passwords/revoke-all", s.gated("revoke_all.title", s.revokeAllPage))
	signedIn("POST /passwords/revoke-all", s.revokeAll)
	signedIn("GET /passwords/{id}", s.detail)
	signedIn("GET /passwords/{id}/edit", s.gated("edit.title", s.editPage))
	signedIn("POST /passwords/{id}/edit", s.edit)
	signedIn("GET /passwords/{id}/revoke", s.gated("revoke.title", s.revokePage))
	signedIn("POST /passwords/{id}/revoke", s.revoke)
	signedIn("GET /connections", s.connectionsPage)
	signedIn("GET "+callbackPath, s.callback)
	signedIn("GET /connections/{provider}", s.connectPage)
	signedIn("POST /connections/{provider}", s.connectConfirm)
	signedIn("GET /connections/{provider}/connect", s.connectGo)
	signedIn("GET /connections/{provider}/disconnect", s.disconnectPage)
	signedIn("POST /connections/{provider}/disconnect", s.disconnect)
	signedIn("GET /history", s.history)
	signedIn("GET /history.csv", s.historyCSV)

	s.administrate(mux)

	open("/", s.notFound)
	return mux
}
