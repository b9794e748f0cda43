package authstore_test

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/authstore"
	"postern/gateway/live"
)

// Narrower networks end the sessions that no longer fit, and no others; an expiry that has moved ends them at its new time.
func TestEditPassword(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.account("alice@example.test")
	p, typed := s.password(authstore.PasswordRequest{Account: a.ID, Label: "Phone", Expires: time.Now().Add(time.Hour)})
	q, other := s.password(authstore.PasswordRequest{Account: a.ID, Label: "Laptop"})
	n := s.node(authstore.Options{})
	here := attempt("alice@example.test", typed)
	there := here
	there.Client = netip.MustParseAddr("198.51.100.7")
	inside, outside, laptop := n.mustLogin(here), n.mustLogin(there), n.mustLogin(attempt("alice@example.test", other))

	edit := authstore.PasswordEdit{Label: " Old phone ", Expires: time.Now().Add(time.Hour), Networks: []netip.Prefix{netip.MustParsePrefix("::ffff:192.0.2.9/120")}}
	s.must(s.desk.EditPassword(t.Context(), p.ID, edit))
	if !outside.hasEnded() || !authstore.ErrRevoked(outside.cause) {
		t.Errorf("the session from elsewhere: ended %v, %v", outside.hasEnded(), outside.cause)
	}
	if inside.hasEnded() || laptop.hasEnded() {
		t.Errorf("sessions that still fit have ended: %v, %v", inside.cause, laptop.cause)
	}
	_, err := n.login(there)
	wantCode(t, "from elsewhere", err, authstore.BadNetwork)
	if got, _ := s.desk.Password(t.Context(), p.ID); got.Label != "Old phone" || got.Networks[0].String() != "192.0.2.0/24" {
		t.Errorf("edited: %+v", got)
	}

	later := n.mustLogin(here)
	edit.Expires = time.Now().Add(3 * time.Second).Truncate(time.Second) // as in the database
	s.must(s.desk.EditPassword(t.Context(), p.ID, edit))
	for _, session := range []*session{inside, later} {
		select {
		case <-session.ended:
			if !errors.Is(session.cause, live.ErrExpired) || time.Now().Before(edit.Expires) {
				t.Errorf("ended at %v, not %v, by %v", time.Now(), edit.Expires, session.cause)
			}
		case <-time.After(30 * time.Second):
			t.Error("a session outlives the expiry that was set while it was open")
		}
	}
	if laptop.hasEnded() {
		t.Errorf("another app password's session ended with it: %v", laptop.cause)
	}
	far := authstore.PasswordEdit{Label: "Laptop", Expires: time.Date(9999, 12, 31, 23, 0, 0, 0, time.FixedZone("West", -5*3600))}
	if _, err := s.desk.EditPassword(t.Context(), q.ID, far); err == nil {
		t.Error("an expiry in the year 10000 was taken")
	}
	if _, err := s.desk.EditPassword(t.Context(), p.ID, edit); err == nil {
		t.Error("an expired one could be edited")
	}
	for what, wrong := range map[string]authstore.PasswordEdit{
		"no label":       {},
		"a past":         {Label: "x", Expires: time.Now().Add(-time.Hour)},
		"a bad network":  {Label: "x", Networks: []netip.Prefix{{}}},
		"a line's break": {Label: "x\r\nBcc: eve@example.test"},
	} {
		if _, err := s.desk.EditPassword(t.Context(), q.ID, wrong); err == nil {
			t.Errorf("%s is taken", what)
		}
	}
}

// A login that was verified just before an edit, and entered just behind it, ends at the new expiry too.
func TestEditBetweenVerifyAndConfirm(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.account("alice@example.test")
	p, typed := s.password(authstore.PasswordRequest{Account: a.ID, Expires: time.Now().Add(time.Hour)})
	n := s.node(authstore.Options{})
	g, err := n.Verify(t.Context(), attempt("alice@example.test", typed))
	if err != nil {
		t.Fatal(err)
	}
	s.must(s.desk.EditPassword(t.Context(), p.ID, authstore.PasswordEdit{Label: "x", Expires: time.Now().Add(5 * time.Second)}))
	session, err := n.enter(g)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-session.ended:
	case <-time.After(30 * time.Second):
		t.Error("the session outlives the new expiry")
	}
}

// The operator is asked when usage is written.
func TestOperatorOfUse(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.account("alice@example.test")
	p, typed := s.password(authstore.PasswordRequest{Account: a.ID})
	for _, tt := range []struct {
		operator func(netip.Addr) string
		want     string
	}{
		{nil, "192.0.0.0/16"},
		{func(netip.Addr) string { return "" }, "192.0.0.0/16"},
		{func(a netip.Addr) string { return "AS64496 for " + a.String() }, "AS64496 for 192.0.2.0"},
	} {
		n := s.start(authstore.Options{Operator: tt.operator})
		for n.Ready() != nil {
			time.Sleep(time.Millisecond)
		}
		g, err := n.Verify(t.Context(), attempt("alice@example.test", typed))
		if err != nil {
			t.Fatal(err)
		}
		n.Used(g, authstore.Use{Protocol: "imap", App: "Mail"})
		n.stop()
		if list, err := s.desk.Usage(t.Context(), p.ID); err != nil || len(list) != 1 || list[0].Operator != tt.want {
			t.Errorf("Usage = %+v, %v; want operator %q", list, err, tt.want)
		}
	}
}

// A form that is sent twice makes one app password, and whoever sent it second is told which.
func TestOneAppPasswordForAForm(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.account("alice@example.test")
	r := authstore.PasswordRequest{Account: a.ID, Label: "Phone", Scopes: authstore.ScopeMail, Request: "form 1"}
	var made, told atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			p, typed, err := s.desk.CreatePassword(context.Background(), r)
			again, isMade := errors.AsType[*authstore.ErrMade](err)
			switch {
			case err == nil && made.CompareAndSwap(0, int64(p.ID)) && typed.Reveal() != "":
			case isMade:
				told.Store(int64(again.Password))
			default:
				t.Errorf("made a second one, or %v", err)
			}
		})
	}
	all.Wait()
	if list, _ := s.desk.Passwords(t.Context(), a.ID, true); len(list) != 1 || made.Load() != int64(list[0].ID) || told.Load() != made.Load() {
		t.Errorf("%d app passwords; made %d, told %d", len(list), made.Load(), told.Load())
	}
}
