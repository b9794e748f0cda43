package gateway

import (
	"log/slog"
	"path/filepath"
	"testing"

	"postern/authstore"
	"postern/authstore/identity"
	"postern/config"
)

// Groups make administrators as that server tells of them at which people sign in, and no other.
func TestWhoTellsOfAdministrators(t *testing.T) {
	t.Parallel()
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
	for signIn, want := range map[string]string{"local": "", "ldap": "ldap", "oidc": "https://id.example.test"} {
		c := &config.Config{Administration: config.Administration{Groups: []string{"admins"}}, Portal: config.Portal{URL: "https://pw.example.test", SignIn: signIn}}
		c.Portal.LDAP = config.LDAP{Address: "ldap.example.test:636", TLS: "implicit", Base: "dc=x", Filter: "(mail={address})"}
		c.Portal.OIDC.Issuer = "https://id.example.test"
		people, err := desk.people(c)
		if err != nil {
			t.Fatalf("%s: %v", signIn, err)
		}
		if by := people.Administrator(identity.Visitor{}, identity.Session{}).Administrator; by.Issuer != want || len(by.Groups) != 1 {
			t.Errorf("%s: %+v", signIn, by)
		}
	}
}
