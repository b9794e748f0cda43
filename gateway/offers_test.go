package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"postern/authstore"
	"postern/config"
	"postern/gateway/route"
	"postern/protocols"
	"postern/protocols/sieveproxy"
)

// A backend is asked as an active account until it answers, and then once an hour. To refuse the login is an answer, too.
func TestInsider(t *testing.T) {
	dir := t.TempDir()
	cfg := &config.Config{Store: config.Store{Database: filepath.Join(dir, "postern.db"), KeyFile: filepath.Join(dir, "root.key")}}
	if _, err := Init(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	desk, err := OpenDesk(t.Context(), cfg, authstore.Actor{Name: "test"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer desk.Close()
	suspended, err := desk.Add(t.Context(), "alice@example.test")
	if err == nil {
		_, err = desk.Suspend(t.Context(), suspended.ID)
	}
	if err == nil {
		_, err = desk.Add(t.Context(), "bob@example.test")
	}
	if err != nil {
		t.Fatal(err)
	}
	routes, err := route.New([]route.Backend{{Name: "dovecot", Login: "{address}", Kind: route.Master}},
		[]route.Rule{{Domain: "*", Protocol: sieveproxy.Protocol, Backend: "dovecot"}}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		err   error
		again bool // at the next look, a minute later
	}{
		"it says":         {nil, false},
		"it is down":      {errors.New("connection refused"), true},
		"it lets none in": {fmt.Errorf("log in: %w", protocols.ErrCredential), false},
	} {
		asked := 0
		i := &insider{desk: desk, protocol: sieveproxy.Protocol, routes: routes, asked: make(map[string]time.Time),
			ask: func(_ context.Context, r *protocols.Route) (protocols.Capabilities, error) {
				if asked++; r.Login != "bob@example.test" {
					t.Errorf("%s: asked as %s", name, r.Login)
				}
				return protocols.Capabilities{{Name: "SIEVE", Value: "fileinto"}}, tt.err
			}}
		if _, err := i.asks(t.Context(), "dovecot"); !errors.Is(err, tt.err) {
			t.Errorf("%s: error %v, want %v", name, err, tt.err)
		}
		if i.asks(t.Context(), "dovecot"); asked == 2 != tt.again {
			t.Errorf("%s: asked %d times", name, asked)
		}
	}
}
