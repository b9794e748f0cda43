package sqlstore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"postern/authstore"
)

// On a full disk nobody knows whether an app password was used since, and the ballast is not given up to end one.
func TestIdleOnAFullDisk(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "postern.db")
	s, err := Open(t.Context(), Options{Path: path, Ballast: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	who := authstore.Actor{Name: "test"}
	var reason string
	for range 1000 { // does not fit into the pages that are there
		reason += "0123456789"
	}
	var change authstore.Change
	if _, change, err = s.AddAccount(t.Context(), who, "alice@example.test", "abcdefghij"); err != nil {
		t.Fatal(err)
	}
	made := make([]authstore.AppPassword, 2)
	for i := range made {
		if made[i], _, err = s.CreatePassword(t.Context(), who, authstore.NewPassword{Account: change.Account, Label: "Phone", Key: 1, Scopes: authstore.ScopeMail, Most: 25,
			Digest: func(authstore.AccountID) authstore.Digest { return authstore.Digest{byte(i)} }}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.write.ExecContext(context.Background(), "PRAGMA max_page_count = 1"); err != nil { // as many as there are
		t.Fatal(err)
	}
	if _, err := s.RevokeIdle(t.Context(), who, made[0].ID, time.Now(), reason); err == nil {
		t.Error("an idle app password was ended on a full disk")
	}
	if _, err := os.Stat(s.ballast.path); err != nil {
		t.Errorf("the ballast was given up for it: %v", err)
	}
	s.Revoke(t.Context(), who, made[1].ID, reason)
	if _, err := os.Stat(s.ballast.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the ballast was kept from a revocation: %v", err)
	}
}
