package live

import (
	"context"
	"errors"
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
	leave = r.Enter(g, protocols.Facts{Protocol: "imap"}, end)
	context.AfterFunc(ctx, leave)
	return func() error { return context.Cause(ctx) }, leave
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
	<-r.Drain(func(f protocols.Facts) bool { return f.Protocol == "dav" })
	if bob() != nil {
		t.Error("a mail session was drained with DAV")
	}
	<-r.Drain(func(protocols.Facts) bool { return true })
	if bob() != protocols.ErrDraining || r.Count() != 0 {
		t.Errorf("after Drain: cause %v, %d sessions", bob(), r.Count())
	}
}

func TestReviewWaitsForThoseThatLeave(t *testing.T) {
	var r Registry
	ended := make(chan error, 2)
	leave := r.Enter(authstore.Grant{Account: 1}, protocols.Facts{}, func(err error) { ended <- err })
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
