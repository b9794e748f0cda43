package storetest

import (
	"errors"
	"testing"
	"time"

	"postern/authstore"
)

func testUpstream(t *testing.T, f *people) {
	ctx := t.Context()
	want := authstore.UpstreamToken{Account: f.alice, Provider: "hosted", Key: 3, Sealed: []byte("one"), Expires: f.Now().Add(time.Hour), Refreshed: f.Now()}
	kinds := func(kinds ...string) {
		t.Helper()
		events, err := f.Events(ctx, authstore.EventQuery{Account: f.alice, Kinds: []string{"connection."}})
		if err != nil || len(events) != len(kinds) {
			t.Fatalf("events %+v, %v; want %v", events, err, kinds)
		}
		for i, e := range events {
			if e.Kind != kinds[len(kinds)-1-i] || e.Detail != "hosted" {
				t.Errorf("event %+v; want %s", e, kinds[len(kinds)-1-i])
			}
		}
	}
	read := func(want authstore.UpstreamToken) {
		t.Helper()
		got, err := f.truth.UpstreamToken(ctx, want.Account, "hosted")
		if err != nil || got.Key != want.Key || string(got.Sealed) != string(want.Sealed) || !got.Expires.Equal(want.Expires) || !got.Refreshed.Equal(want.Refreshed) ||
			got.Version != want.Version || got.Failure != want.Failure || !got.Failed.Equal(want.Failed) {
			t.Errorf("UpstreamToken = %+v, %v; want %+v", got, err, want)
		}
	}
	if _, err := f.truth.UpstreamToken(ctx, f.alice, "hosted"); !errors.Is(err, authstore.ErrNotFound) {
		t.Errorf("before: %v", err)
	}
	var err error
	if want.Version, err = f.truth.Connect(ctx, tester, want); err != nil || want.Version == 0 {
		t.Fatalf("Connect = %d, %v", want.Version, err)
	}
	read(want)
	first := want

	want.Sealed, want.Expires = []byte("two"), want.Expires.Add(time.Hour)
	if v, err := f.truth.Refresh(ctx, want); err != nil || v != first.Version+1 {
		t.Errorf("Refresh = %d, %v", v, err)
	}
	want.Version++
	read(want)
	if v, err := f.truth.Refresh(ctx, first); err != nil || v != 0 {
		t.Errorf("Refresh of an older version = %d, %v; want nothing written", v, err)
	}
	if failed, err := f.truth.FailConnection(ctx, tester, first, "revoked"); failed || err != nil {
		t.Errorf("an older version failed: %v, %v", failed, err)
	}
	read(want)
	kinds(authstore.KindConnectionMade)

	want.Failure, want.Failed = "revoked", f.Now()
	for _, first := range []bool{true, false} { // it is told once
		if failed, err := f.truth.FailConnection(ctx, tester, want, "revoked"); failed != first || err != nil {
			t.Errorf("FailConnection = %v, %v; want %v", failed, err, first)
		}
	}
	read(want)
	kinds(authstore.KindConnectionMade, authstore.KindConnectionFailed)
	want.Failure, want.Failed = "", time.Time{}
	if want.Version, err = f.truth.Refresh(ctx, want); err != nil || want.Version == 0 { // the answer of another, who was first, came later
		t.Errorf("Refresh of what failed = %d, %v", want.Version, err)
	}
	read(want)

	older := want
	if want.Version, err = f.truth.Connect(ctx, tester, want); err != nil || want.Version <= older.Version {
		t.Errorf("Connect again = %d, %v; want above %d", want.Version, err, older.Version)
	}
	if err := f.truth.Disconnect(ctx, tester, f.alice, "hosted"); err != nil {
		t.Error(err)
	}
	if err := f.truth.Disconnect(ctx, tester, f.alice, "hosted"); !errors.Is(err, authstore.ErrNotFound) {
		t.Errorf("Disconnect again: %v", err)
	}
	if v, err := f.truth.Refresh(ctx, want); err != nil || v != 0 {
		t.Errorf("Refresh of what was removed = %d, %v", v, err)
	}
	kinds(authstore.KindConnectionMade, authstore.KindConnectionFailed, authstore.KindConnectionMade, authstore.KindConnectionRemoved)
	f.pass(time.Second)
	if want.Version, err = f.truth.Connect(ctx, tester, want); err != nil || want.Version == first.Version {
		t.Errorf("Connect after that = %d, %v; want another version than before", want.Version, err)
	}

	if _, err := f.truth.Connect(ctx, authstore.Actor{Name: "portal", Session: 99}, want); !errors.Is(err, authstore.ErrSignedOut) {
		t.Errorf("in a session that has ended: %v", err)
	}
	all := authstore.UpstreamToken{Provider: "hosted", Key: 3, Sealed: []byte("all"), Expires: f.Now(), Refreshed: f.Now()}
	if all.Version, err = f.truth.Refresh(ctx, all); err != nil || all.Version == 0 {
		t.Errorf("the first of all accounts: %d, %v", all.Version, err)
	}
	read(all)
	second := all
	second.Version = 0
	if v, err := f.truth.Refresh(ctx, second); err != nil || v != 0 {
		t.Errorf("a second first of all accounts: %d, %v", v, err)
	}
	if _, err := f.RemoveAccount(ctx, tester, f.alice); err != nil {
		t.Fatal(err)
	}
	if list, err := f.truth.UpstreamTokens(ctx); err != nil || len(list) != 1 || list[0].Account != 0 {
		t.Errorf("after its account was removed: %+v, %v; want the one of all accounts", list, err)
	}
	if _, err := f.truth.Connect(ctx, tester, want); !errors.Is(err, authstore.ErrNotFound) {
		t.Errorf("Connect of an account that is gone: %v", err)
	}
}
