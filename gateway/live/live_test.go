package live

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/authstore"
	"postern/protocols"
)

var errRevoked = errors.New("revoked")

// enter files a session whose front door leaves as soon as it is told to end, and returns why it ended.
func enter(r *Registry, g authstore.Grant) (cause func() error, leave func()) {
	ctx, end := context.WithCancelCause(context.Background())
	entry := r.Enter(&g, &protocols.Facts{Protocol: "imap"}, end)
	context.AfterFunc(ctx, entry.Leave)
	return func() error { return context.Cause(ctx) }, entry.Leave
}

func TestReviewEndsWhatHasEnded(t *testing.T) {
	var r Registry
	alice1, _ := enter(&r, authstore.Grant{Account: 1, Password: 11})
	alice2, _ := enter(&r, authstore.Grant{Account: 1, Password: 12})
	bob, _ := enter(&r, authstore.Grant{Account: 2, Password: 21})

	<-r.Review(1, func(g authstore.Grant) error {
		if g.Account != 1 {
			t.Errorf("asked about account %d", g.Account)
		}
		if g.Password == 11 {
			return errRevoked
		}
		return nil
	})
	if got := alice1(); got != errRevoked {
		t.Errorf("the revoked session's cause = %v, want %v", got, errRevoked)
	}
	if alice2() != nil || bob() != nil {
		t.Errorf("sessions with a good grant ended: %v, %v", alice2(), bob())
	}
	if got := r.Count(); got != 2 {
		t.Errorf("Count() = %d, want 2", got)
	}
}

func TestReviewWaitsForThoseThatLeave(t *testing.T) {
	var r Registry
	ended := make(chan error, 2)
	leave := r.Enter(&authstore.Grant{Account: 1}, &protocols.Facts{}, func(err error) { ended <- err }).Leave
	revoke := func(authstore.Grant) error { return errRevoked }
	first, second := r.Review(0, revoke), r.Review(0, revoke)
	<-ended
	select {
	case <-first:
		t.Fatal("the review was over before the session had left")
	case <-second:
		t.Fatal("the second review was over before the session had left")
	default:
	}
	leave()
	leave() // twice does no harm
	<-first
	<-second
	if len(ended) != 0 {
		t.Error("end was called twice")
	}
}

func TestExpiryEndsASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r Registry
		expires, _ := enter(&r, authstore.Grant{Account: 1, Expires: time.Now().Add(time.Hour)})
		left, leave := enter(&r, authstore.Grant{Account: 1, Expires: time.Now().Add(time.Hour)})
		leave()
		time.Sleep(time.Hour - time.Second)
		if expires() != nil {
			t.Fatalf("ended early: %v", expires())
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if expires() != ErrExpired {
			t.Errorf("cause = %v, want %v", expires(), ErrExpired)
		}
		if left() != nil {
			t.Errorf("a session that had left was ended: %v", left())
		}
	})
}

func TestExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r Registry
		begin := time.Now()
		in := func(d time.Duration) time.Time { return begin.Add(d) }
		sooner, _ := enter(&r, authstore.Grant{Account: 1, Password: 11, Expires: in(time.Hour)})
		later, _ := enter(&r, authstore.Grant{Account: 1, Password: 12, Expires: in(time.Minute)})
		never, _ := enter(&r, authstore.Grant{Account: 1, Password: 13, Expires: in(time.Minute)})
		new, _ := enter(&r, authstore.Grant{Account: 1, Password: 14})
		same, _ := enter(&r, authstore.Grant{Account: 1, Password: 15})
		_, leave := enter(&r, authstore.Grant{Account: 1, Password: 11})
		leave()
		other, _ := enter(&r, authstore.Grant{Account: 2, Password: 11})
		move := map[authstore.PasswordID]time.Time{11: in(time.Second), 12: in(time.Hour), 13: {}, 14: in(time.Second)}
		for range 2 {
			r.Expire(1, func(g authstore.Grant) (time.Time, bool) { at, ok := move[g.Password]; return at, ok })
		}
		for _, step := range []struct {
			at    time.Duration
			ended string // which, in order
		}{{999 * time.Millisecond, "------"}, {time.Second, "x--x--"}, {time.Hour - 1, "x--x--"}, {time.Hour, "xx-x--"}, {24 * time.Hour, "xx-x--"}} {
			time.Sleep(time.Until(in(step.at)))
			synctest.Wait()
			got := ""
			for _, cause := range []func() error{sooner, later, never, new, same, other} {
				switch cause() {
				case nil:
					got += "-"
				case ErrExpired:
					got += "x"
				default:
					t.Errorf("cause %v", cause())
				}
			}
			if got != step.ended {
				t.Errorf("after %v ended %s, want %s", step.at, got, step.ended)
			}
		}
	})
}

// Clients of a node that stops connect to the others: not all at once, and few without waiting.
func TestDrain(t *testing.T) {
	for name, tt := range map[string]struct {
		sessions int
		over     time.Duration
		half     time.Duration // when half of them have ended
	}{
		"a few":        {4, time.Minute, 2 * drainStep},
		"a great many": {1000, time.Second, time.Second / 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var r Registry
				dav := r.Enter(&authstore.Grant{Account: 1}, &protocols.Facts{Protocol: "dav"}, func(err error) { t.Errorf("a request was ended: %v", err) })
				var causes []func() error
				for i := range tt.sessions {
					cause, _ := enter(&r, authstore.Grant{Account: authstore.AccountID(i)})
					causes = append(causes, cause)
				}
				r.Drain(func(protocol string) bool { return protocol == "imap" }, tt.over)
				time.Sleep(tt.half - time.Nanosecond)
				synctest.Wait()
				if got, want := r.Count()-1, tt.sessions/2; got < want-1 || got > want+1 {
					t.Errorf("%d sessions are left after %v, want %d", got, tt.half, want)
				}
				late, _ := enter(&r, authstore.Grant{Account: 1})
				synctest.Wait()
				if late() != protocols.ErrDraining {
					t.Errorf("a late session ended with %v", late())
				}
				time.Sleep(tt.half)
				synctest.Wait()
				for _, cause := range causes {
					if cause() != protocols.ErrDraining {
						t.Fatalf("cause %v", cause())
					}
				}
				dav.Leave()
				if r.Count() != 0 {
					t.Errorf("%d sessions are left", r.Count())
				}
			})
		})
	}
}

func TestListAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r Registry
		causes := make(map[string]func() error)
		for _, s := range []struct {
			id       string
			account  authstore.AccountID
			password authstore.PasswordID
		}{{"c", 1, 11}, {"a", 1, 12}, {"b", 2, 21}} {
			ctx, end := context.WithCancelCause(context.Background())
			entry := r.Enter(&authstore.Grant{Account: s.account, Password: s.password, Address: "alice@example.test"},
				&protocols.Facts{Conn: s.id, Protocol: "imap", Backend: "dovecot", Client: netip.MustParseAddrPort("192.0.2.1:993")}, end)
			context.AfterFunc(ctx, entry.Leave)
			entry.Called("Mail " + s.id)
			causes[s.id] = func() error { return context.Cause(ctx) }
			time.Sleep(time.Second)
		}
		ids := func(list []Session) (s string) {
			for _, one := range list {
				s += one.ID
			}
			return s
		}
		for _, tt := range []struct {
			sel  Selection
			want string
		}{
			{Selection{}, "cab"}, {Selection{Account: 1}, "ca"}, {Selection{Password: 12}, "a"}, {Selection{ID: "b"}, "b"},
			{Selection{Account: 2, Password: 11}, ""}, {Selection{Account: 1, ID: "b"}, ""},
		} {
			if got := ids(r.List(tt.sel)); got != tt.want {
				t.Errorf("List(%+v) = %q, want %q", tt.sel, got, tt.want)
			}
		}
		want := Session{ID: "b", Account: 2, Address: "alice@example.test", Password: 21, Protocol: "imap", App: "Mail b", Backend: "dovecot",
			Client: netip.MustParseAddr("192.0.2.1"), Since: time.Now().Add(-time.Second)}
		if got := r.List(Selection{ID: "b"})[0]; got != want {
			t.Errorf("List = %+v, want %+v", got, want)
		}
		if n, left := r.End(Selection{ID: "z"}); n != 0 {
			t.Errorf("ended %d sessions that are not there", n)
		} else {
			<-left
		}
		n, left := r.End(Selection{Account: 1})
		<-left
		if n != 2 || causes["c"]() != ErrEnded || causes["a"]() != ErrEnded || causes["b"]() != nil {
			t.Errorf("ended %d: %v %v %v", n, causes["c"](), causes["a"](), causes["b"]())
		}
	})
}

func TestManyComeAndGoWhileOthersAreEnded(t *testing.T) {
	var r Registry
	var churn sync.WaitGroup
	for i := range 8 {
		churn.Go(func() {
			for range 500 {
				_, leave := enter(&r, authstore.Grant{Account: authstore.AccountID(i % 3), Password: authstore.PasswordID(i)})
				leave()
			}
		})
	}
	for range 50 {
		<-r.Review(1, func(g authstore.Grant) error { return errRevoked })
	}
	churn.Wait()
	if r.Count() != 0 || len(r.accounts) != 0 {
		t.Errorf("%d sessions, %d accounts left", r.Count(), len(r.accounts))
	}
}

// A client that is busy may stay while its node drains, but not when its app password is revoked meanwhile.
func TestRevocationWhileDraining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r Registry
		var told []error
		r.Enter(&authstore.Grant{Account: 1}, &protocols.Facts{Protocol: "imap"}, func(err error) { told = append(told, err) })
		revoke := func(authstore.Grant) error { return errRevoked }
		everybody := func(string) bool { return true }
		r.Drain(everybody, time.Second)
		synctest.Wait()
		r.Review(1, revoke)
		r.Drain(everybody, time.Second)
		synctest.Wait()
		r.Review(1, revoke)
		if !slices.Equal(told, []error{protocols.ErrDraining, errRevoked}) {
			t.Errorf("it was told %v", told)
		}
		for s := range r.accounts[1].andAfter() {
			s.Leave() // or the reviews wait
		}
	})
}
