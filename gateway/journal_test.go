package gateway

import (
	"bytes"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"postern/authstore"
	"postern/gateway/ops"
	"postern/protocols"
)

// The lines of logins and ended sessions are promised in docs/operation.md, attribute by attribute.
func TestJournal(t *testing.T) {
	t.Parallel()
	facts := protocols.Facts{Conn: "c1", Protocol: "imap", Client: netip.MustParseAddrPort("192.0.2.7:4711"), TLS: true}
	led, long := facts, facts
	led.Backend, led.App = "dovecot", "Mutt"
	long.Backend, long.App = "dovecot", strings.Repeat("x", 1000)
	grant := authstore.Grant{Account: 7, Password: 9, Address: "alice@example.test", PublicID: "pub"}
	const prefix = "msg=login conn=c1 proto=imap client=192.0.2.7 mechanism=PLAIN "
	for name, tt := range map[string]struct {
		event protocols.LoginEvent
		want  string
	}{
		"accepted": {
			protocols.LoginEvent{Facts: led, Mechanism: "PLAIN", Grant: grant, Duration: 1234567 * time.Nanosecond},
			"level=INFO " + prefix + "code=ok account=7 app_password=9 backend=dovecot app=Mutt dur=1.235ms",
		},
		"wrong, of an account": {
			protocols.LoginEvent{Facts: facts, Mechanism: "PLAIN", Err: &authstore.Refusal{Code: authstore.Wrong, Account: 7}, Domain: "example.test"},
			"level=INFO " + prefix + "code=wrong account=7 domain=example.test dur=0s",
		},
		"wrong, of a domain that is not ours": {
			protocols.LoginEvent{Facts: facts, Mechanism: "PLAIN", Err: &authstore.Refusal{Code: authstore.Wrong}, Domain: "hunter2.test"},
			"level=INFO " + prefix + "code=wrong dur=0s",
		},
		"the store is down": {
			protocols.LoginEvent{Facts: facts, Mechanism: "PLAIN", Err: &authstore.Refusal{Code: authstore.Unavailable, Cause: errors.New("disk")}},
			"level=WARN " + prefix + "code=unavailable dur=0s err=disk",
		},
		"the backend is down": {
			protocols.LoginEvent{Facts: led, Mechanism: "PLAIN", Grant: grant, Err: errors.New("refused")},
			"level=WARN " + prefix + "code=backend account=7 app_password=9 backend=dovecot app=Mutt dur=0s err=refused",
		},
		"the client has gone": {
			protocols.LoginEvent{Facts: led, Mechanism: "PLAIN", Grant: grant, Err: protocols.ErrClientGone},
			"level=INFO " + prefix + "code=gone account=7 app_password=9 backend=dovecot app=Mutt dur=0s err=\"client gone\"",
		},
		"a long name of an app": {
			protocols.LoginEvent{Facts: long, Mechanism: "PLAIN", Grant: grant},
			"level=INFO " + prefix + "code=ok account=7 app_password=9 backend=dovecot app=" + strings.Repeat("x", 64) + " dur=0s",
		},
	} {
		t.Run(name, func(t *testing.T) {
			j, text := newJournal()
			j.Login(tt.event)
			if got := text(); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
	j, text := newJournal()
	for range 1000 {
		j.Login(protocols.LoginEvent{Facts: facts, Mechanism: "PLAIN", Err: &authstore.Refusal{Code: authstore.Throttled}})
	}
	if got, want := text(), `level=INFO msg="logins throttled" proto=imap client=192.0.2.7 count=1`; got != want {
		t.Errorf("a thousand throttled attempts:\ngot  %s\nwant %s", got, want)
	}
	j, text = newJournal()
	j.Ended(protocols.EndEvent{Facts: led, Grant: grant, Reason: "client closed", Duration: 61 * time.Second, Up: 1, Down: 2})
	want := `level=INFO msg="session ended" conn=c1 proto=imap client=192.0.2.7 account=7 app_password=9 backend=dovecot app=Mutt reason="client closed" dur=1m1s up=1 down=2`
	if got := text(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func newJournal() (*journal, func() string) {
	var b bytes.Buffer
	log := slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	m := ops.NewMetrics(ops.Gauges{Sessions: func() int { return 0 }, FeedLag: func() time.Duration { return 0 }})
	return &journal{Metrics: m, log: log, ours: func(d string) bool { return d == "example.test" }}, func() string { return strings.TrimSpace(b.String()) }
}
