package ops

import (
	"context"
	"encoding/base64"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/authstore"
	"postern/authstore/secret"
	"postern/gateway/live"
	"postern/protocols"
)

func TestSessions(t *testing.T) {
	keys := secret.NewKeyring()
	var open live.Registry
	s := httptest.NewServer((&Server{Metrics: NewMetrics(Gauges{}), Sessions: &open, Keys: func() *secret.Keyring { return keys },
		Log: slog.New(slog.DiscardHandler)}).Handler())
	defer s.Close()
	c := &Client{Address: strings.TrimPrefix(s.URL, "http://"), Keys: keys}
	for i, account := range []authstore.AccountID{1, 1, 2} {
		ctx, end := context.WithCancelCause(context.Background())
		entry := open.Enter(&authstore.Grant{Account: account, Password: authstore.PasswordID(10 + i)},
			&protocols.Facts{Conn: "conn" + string(rune('a'+i)), Protocol: "imap"}, end)
		context.AfterFunc(ctx, entry.Leave)
	}
	list, err := c.List(t.Context(), live.Selection{Account: 1})
	if err != nil || len(list) != 2 || list[0].Protocol != "imap" {
		t.Errorf("List = %+v, %v", list, err)
	}
	if e, err := c.End(t.Context(), live.Selection{Password: 11}); err != nil || e != (Ended{1, true}) {
		t.Errorf("End = %+v, %v", e, err)
	}
	if _, err := c.End(t.Context(), live.Selection{}); err == nil || !strings.Contains(err.Error(), "which sessions?") {
		t.Errorf("ending all: %v", err)
	}
	other := &Client{Address: c.Address, Keys: secret.NewKeyring()}
	if _, err := other.End(t.Context(), live.Selection{Account: 1}); err == nil || !strings.Contains(err.Error(), "another key file") {
		t.Errorf("with another key: %v", err)
	}
	gone := &Client{Address: "127.0.0.1:1", Keys: keys}
	if _, err := gone.List(t.Context(), live.Selection{}); err == nil || !strings.Contains(err.Error(), "no gateway answers on 127.0.0.1:1") {
		t.Errorf("without a gateway: %v", err)
	}
	if open.Count() != 2 {
		t.Errorf("%d sessions are open, want 2", open.Count())
	}
}

// A pass is good for its own request, for a moment, and from who has the key.
func TestPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := secret.NewKeyring()
		pass, err := newPass(keys, "DELETE", "/sessions?account=1")
		if err != nil {
			t.Fatal(err)
		}
		sealed, _ := base64.StdEncoding.DecodeString(pass)
		sealed[len(sealed)-1]++
		check := func(name, method, uri, pass string, want bool) {
			t.Helper()
			r := httptest.NewRequest(method, uri, nil)
			r.Header.Set(passHeader, pass)
			if got := mayPass(keys, r); got != want {
				t.Errorf("%s: passes %v, want %v", name, got, want)
			}
		}
		check("good", "DELETE", "/sessions?account=1", pass, true)
		check("none", "DELETE", "/sessions?account=1", "", false)
		check("for others", "DELETE", "/sessions?account=2", pass, false)
		check("for another method", "GET", "/sessions?account=1", pass, false)
		check("altered", "DELETE", "/sessions?account=1", base64.StdEncoding.EncodeToString(sealed), false)
		check("nonsense", "DELETE", "/sessions?account=1", "!", false)
		stored, err := keys.SealRow(keys.Newest(), []byte("a password"), "operations DELETE /sessions?account=1")
		if err != nil {
			t.Fatal(err)
		}
		check("something else under the key", "DELETE", "/sessions?account=1", base64.StdEncoding.EncodeToString(stored), false)
		time.Sleep(passTime)
		check("late", "DELETE", "/sessions?account=1", pass, false)
	})
}
