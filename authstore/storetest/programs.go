package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"postern/authstore"
	"postern/authstore/apitoken"
	"postern/authstore/identity"
	"postern/authstore/secret"
)

// Tokens are found by their digest until they are revoked, whose history belongs to no account.
func testTokens(t *testing.T, f *fixture) {
	ctx, truth := t.Context(), f.Truth.(apitoken.Truth)
	made, other := secret.NewToken(), secret.NewToken()
	expires := f.Now().Add(time.Hour)
	added, err := truth.AddToken(ctx, eve, apitoken.Token{Name: "keycloak", Scopes: []apitoken.Scope{apitoken.EventsRead, apitoken.PrimaryChanged}, Expires: expires}, made.Digest())
	if err != nil || added.ID == 0 || !added.Created.Equal(f.Now()) {
		t.Fatalf("added %+v, %v", added, err)
	}
	if _, err := truth.AddToken(ctx, eve, apitoken.Token{Name: "keycloak"}, other.Digest()); !errors.Is(err, authstore.ErrNameTaken) {
		t.Errorf("the name again: %v", err)
	}
	if _, err := truth.AddToken(ctx, eve, apitoken.Token{Name: "another", Scopes: []apitoken.Scope{apitoken.Everything}}, other.Digest()); err != nil {
		t.Fatal(err)
	}
	want := func(lastUsed time.Time) {
		t.Helper()
		found, err := truth.TokenWith(ctx, made.Digest())
		if err != nil || found.ID != added.ID || found.Name != "keycloak" || fmt.Sprint(found.Scopes) != "[events:read primary:changed]" || !found.Expires.Equal(expires) || !found.LastUsed.Equal(lastUsed) {
			t.Errorf("found %+v, %v", found, err)
		}
	}
	want(time.Time{})
	used := f.Now().Add(time.Minute)
	for _, at := range []time.Time{used, used.Add(-time.Second)} { // a node whose clock is behind moves nothing back
		if err := truth.TokenUsed(ctx, added.ID, at); err != nil {
			t.Fatal(err)
		}
	}
	want(used)
	if list, err := truth.Tokens(ctx); err != nil || len(list) != 2 || list[0].Name != "another" || !list[0].Expires.IsZero() {
		t.Errorf("the list: %+v, %v", list, err)
	}
	if err := truth.RemoveToken(ctx, eve, "keycloak"); err != nil {
		t.Fatal(err)
	}
	if _, err := truth.TokenWith(ctx, made.Digest()); !errors.Is(err, authstore.ErrNotFound) {
		t.Errorf("revoked: %v", err)
	}
	if err := truth.RemoveToken(ctx, eve, "keycloak"); !errors.Is(err, authstore.ErrNotFound) {
		t.Errorf("revoked again: %v", err)
	}
	events, err := f.Events(ctx, authstore.EventQuery{Kinds: []string{"token."}})
	if err != nil || len(events) != 3 || events[0].Kind != "token.revoked" || events[0].Detail != "keycloak" || events[0].Actor.Name != eve.Name || events[0].Account != 0 ||
		events[2].Detail != "keycloak: events:read primary:changed" {
		t.Errorf("the history: %+v, %v", events, err)
	}
}

// An import adds all of a batch or nothing.
func testImport(t *testing.T, f *fixture) {
	ctx, people := t.Context(), f.Truth.(identity.Truth)
	alice := f.account(t, "alice@example.test")
	f.account(t, "taken@example.test")
	c, err := f.Import(ctx, eve, []authstore.AccountImport{
		{Account: alice.ID, Aliases: []string{"al@example.test"}, BackendName: "u17", Issuer: "ldap", Subject: "1"},
		{Address: "bob@example.test", PublicID: "idbob", Aliases: []string{"bobby@example.test", "robert@example.test"}, Issuer: "ldap", Subject: "2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	bob, err := f.Account(ctx, "robert@example.test")
	if err != nil || fmt.Sprint(bob.Names) != "[bob@example.test bobby@example.test robert@example.test]" || bob.Status != authstore.Active || c.Account != bob.ID || !c.Names {
		t.Errorf("made %+v by %+v, %v", bob, c, err)
	}
	if a, err := f.Account(ctx, "al@example.test"); err != nil || a.ID != alice.ID || a.BackendName != "u17" || a.Version <= alice.Version {
		t.Errorf("changed %+v, %v", a, err)
	}
	if of, err := people.PersonTied(ctx, "ldap", "2"); err != nil || of.ID != bob.ID {
		t.Errorf("tied %+v, %v", of, err)
	}
	events, err := f.Events(ctx, authstore.EventQuery{Account: bob.ID})
	if got := fmt.Sprint(kinds(events, func(e authstore.Event) string { return e.Kind + " " + e.Detail })); err != nil ||
		got != "[tie.made ldap alias.added robert@example.test alias.added bobby@example.test account.added bob@example.test]" {
		t.Errorf("the history: %s, %v", got, err)
	}
	for name, tt := range map[string]struct {
		wrong authstore.AccountImport
		want  error
	}{
		"a name that is taken":     {authstore.AccountImport{Address: "taken@example.test", PublicID: "x"}, authstore.ErrNameTaken},
		"an alias that is taken":   {authstore.AccountImport{Address: "new@example.test", PublicID: "x", Aliases: []string{"taken@example.test"}}, authstore.ErrNameTaken},
		"a person who is another":  {authstore.AccountImport{Account: alice.ID, Issuer: "ldap", Subject: "3"}, identity.ErrTied},
		"a person with an account": {authstore.AccountImport{Address: "new@example.test", PublicID: "x", Issuer: "ldap", Subject: "2"}, identity.ErrTied},
	} {
		_, err := f.Import(ctx, eve, []authstore.AccountImport{{Address: "good@example.test", PublicID: "y"}, tt.wrong})
		var which *authstore.ImportError
		if !errors.Is(err, tt.want) || !errors.As(err, &which) || which.Index != 1 {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := f.Account(ctx, "good@example.test"); !errors.Is(err, authstore.ErrNotFound) {
			t.Fatalf("%s: the other was written: %v", name, err)
		}
	}
	if _, err := f.Import(ctx, eve, []authstore.AccountImport{{Account: alice.ID, Issuer: "ldap", Subject: "1"}}); err != nil {
		t.Errorf("tied already: %v", err)
	}
}
