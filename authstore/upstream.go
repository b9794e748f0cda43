package authstore

import (
	"context"
	"fmt"
	"time"
)

// UpstreamToken is what opens an account at the backends of one authorization server, as the store keeps it.
type UpstreamToken struct {
	Account   AccountID // 0: it serves all accounts
	Provider  string    // the configuration's name of the authorization server
	Key       uint32
	Sealed    []byte    // bound to UpstreamPlace
	Expires   time.Time // of the access token
	Refreshed time.Time
	// Version counts what was written. A connection that is made anew begins at a number that none before it had; 0: there is none yet.
	Version int64
	Failure string    // why it can't be refreshed any more, as a code; empty: it can
	Failed  time.Time // since when; zero: it has not
}

// UpstreamPlace is what a token is sealed for.
func UpstreamPlace(id AccountID, provider string) string {
	return fmt.Sprintf("upstream_token/%d/%s", id, provider)
}

// The kinds of events of connections to other servers. Their detail is the configuration's name of the authorization server.
const (
	KindConnectionMade    = "connection.made"
	KindConnectionFailed  = "connection.failed"
	KindConnectionRemoved = "connection.removed"
)

// UpstreamStore is where they are kept: the truth. A row is written by one process at a time; what one writes over another's is refused by its version.
type UpstreamStore interface {
	// UpstreamToken reads one; ErrNotFound.
	UpstreamToken(ctx context.Context, id AccountID, provider string) (UpstreamToken, error)
	UpstreamTokens(ctx context.Context) ([]UpstreamToken, error)
	// Connect writes a token that somebody consented to, over one that is there, and gives its version; ErrNotFound where the account is gone.
	Connect(ctx context.Context, actor Actor, t UpstreamToken) (version int64, err error)
	// Refresh writes a token in place of the one of t.Version, which is 0 for the first of all accounts, and takes back that it failed. It gives the
	// new version; 0: there is another one now, or none, and nothing was written.
	Refresh(ctx context.Context, t UpstreamToken) (version int64, err error)
	// FailConnection notes why the token of t.Version can't be refreshed any more; false: that was known, or there is another one now.
	FailConnection(ctx context.Context, actor Actor, t UpstreamToken, failure string) (bool, error)
	// Disconnect removes a token; ErrNotFound.
	Disconnect(ctx context.Context, actor Actor, id AccountID, provider string) error
	// Lease is Writer's.
	Lease(ctx context.Context, name, owner string, until time.Time) (bool, error)
}
