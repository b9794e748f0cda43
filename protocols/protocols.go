// Package protocols holds what the front doors share: who decides a login, where it is led, and who is told of it. The
// front doors themselves are its child packages; the gateway builds them and hands these parts in.
package protocols

import (
	"context"
	"net/netip"
	"time"

	"postern/authstore"
)

// Verifier decides one login. In production it is an authstore.Store.
type Verifier interface {
	// Verify answers with a grant or an *authstore.Refusal; any other error means "temporarily unavailable".
	Verify(ctx context.Context, a authstore.Attempt) (authstore.Grant, error)
	// Confirm is the last act before success is told (in DAV: before the first byte goes to the backend), after the session
	// has been entered: it fails when the grant has ended meanwhile, and when that can't be known.
	Confirm(ctx context.Context, g authstore.Grant) error
	// Used notes an accepted login. It never blocks on a database.
	Used(g authstore.Grant, u authstore.Use)
	// Named says of which app a login is that was noted without one.
	Named(g authstore.Grant, u authstore.Use)
}

// Sessions is the registry of live sessions. In production it is a live.Registry.
type Sessions interface {
	// Enter files a session under its grant before success is told. Both are kept, and don't change but by Entry.Called. end is
	// called from any goroutine with the reason when the session must end, at most once, and once more where the first reason was
	// ErrDraining; it must not block.
	Enter(g *authstore.Grant, f *Facts, end context.CancelCauseFunc) Entry
}

// Entry is one session in the registry. Any goroutine may use it.
type Entry interface {
	// Called sets Facts.App to the name that the session's app gives itself.
	Called(app string)
	// Leave is called when the session's connections are closed; once more does no harm.
	Leave()
}

// Router leads a grant to the backend that holds its data. In production it is a route.Table.
type Router interface {
	// Route returns ErrNoRoute where none is configured.
	Route(ctx context.Context, protocol string, g authstore.Grant) (*Route, error)
}

// Observer is told what logs and metrics need. Its methods don't block and never get a secret.
type Observer interface {
	Login(e LoginEvent)
	Ended(e EndEvent)
	// Backend tells how long one step towards a backend took: "connect", "login", "request".
	Backend(backend, step string, d time.Duration, err error)
}

// Facts are what is known of a client's connection.
type Facts struct {
	Conn     string         // random id that joins log lines
	Protocol string         // "imap", "submission", "pop3", "managesieve", "dav"
	Client   netip.AddrPort // after PROXY protocol or trusted proxies
	TLS      bool
	App      string // the client's name as it gave it, cut short; empty: it gave none
	Backend  string // where its login was led; empty: it never got there
}

// LoginEvent is one decided login.
type LoginEvent struct {
	Facts
	Mechanism string
	Grant     authstore.Grant // zero where it was refused
	Domain    string          // of the login name, if the domain is one of ours; nothing else is known of refused names
	Err       error           // nil: accepted
	Duration  time.Duration   // since the attempt was read
}

// EndEvent is one ended session.
type EndEvent struct {
	Facts
	Grant    authstore.Grant
	Reason   string // "logout", "client closed", "backend closed", "revoked", "idle", "drained", ...
	Duration time.Duration
	Up, Down int64 // bytes towards the backend and towards the client
}
