package portal

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"html/template"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/op"
	"golang.org/x/text/language"

	"postern/authstore/identity"
	"postern/gateway/oidcsignin"
	"postern/internal/testlab"
)

// zitadel is an OpenID Connect provider that others wrote, with a page to sign in on.
type zitadel struct {
	*storage.Storage
	provider *op.Provider
	issuer   string
	key      *rsa.PrivateKey
	keyID    string

	mu      sync.Mutex      // guards factors
	factors map[string]bool // requests in which a second factor was given
}

// colleagues are whom the provider knows, by subject.
type colleagues map[string]*storage.User

func (c colleagues) GetUserByID(id string) *storage.User { return c[id] }

func (c colleagues) GetUserByUsername(name string) *storage.User {
	for _, u := range c {
		if u.Username == name {
			return u
		}
	}
	return nil
}

func (colleagues) ExampleClientID() string { return "service" }

// request is one in which a second factor may have been given.
type request struct {
	*storage.AuthRequest
	factor bool
}

func (r *request) GetAMR() []string {
	if r.factor {
		return append(r.AuthRequest.GetAMR(), "otp", "mfa")
	}
	return r.AuthRequest.GetAMR()
}

func (z *zitadel) told(r op.AuthRequest, err error) (op.AuthRequest, error) {
	own, ok := r.(*storage.AuthRequest)
	if err != nil || !ok {
		return r, err
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	return &request{own, z.factors[own.ID]}, nil
}

func (z *zitadel) AuthRequestByID(ctx context.Context, id string) (op.AuthRequest, error) {
	return z.told(z.Storage.AuthRequestByID(ctx, id))
}

func (z *zitadel) AuthRequestByCode(ctx context.Context, code string) (op.AuthRequest, error) {
	return z.told(z.Storage.AuthRequestByCode(ctx, code))
}

func (z *zitadel) CreateAccessToken(ctx context.Context, r op.TokenRequest) (string, time.Time, error) {
	if own, ok := r.(*request); ok {
		r = own.AuthRequest
	}
	return z.Storage.CreateAccessToken(ctx, r)
}

var zitadelPage = template.Must(template.New("").Parse(`<!doctype html><html lang="en"><title>Example ID</title><link rel="icon" href="data:,">
<main><h1>Example ID</h1><form method="post"><input type="hidden" name="id" value="{{.}}">
<label>User name <input name="who"></label> <label>Password at Example ID <input name="password" type="password"></label>
<label><input type="checkbox" name="factor" value="yes"> I have my key with me</label> <button>Log in</button></form></main></html>`))

// login is the page. The second factor is a tick.
func (z *zitadel) login(w http.ResponseWriter, r *http.Request) {
	id := r.FormValue("id")
	if r.Method != http.MethodPost {
		zitadelPage.Execute(w, r.FormValue("authRequestID"))
		return
	}
	if err := z.CheckUsernamePassword(r.FormValue("who"), r.FormValue("password"), id); err != nil {
		zitadelPage.Execute(w, id)
		return
	}
	z.mu.Lock()
	z.factors[id] = r.FormValue("factor") == "yes"
	z.mu.Unlock()
	http.Redirect(w, r, op.AuthCallbackURL(z.provider)(op.ContextWithIssuer(r.Context(), z.issuer), id), http.StatusFound)
}

// newZitadel serves a portal whose people sign in at the provider.
func newZitadel(t *testing.T) (*zitadel, *scene) {
	t.Helper()
	z := &zitadel{factors: make(map[string]bool)}
	mux := http.NewServeMux()
	srv := httptest.NewUnstartedServer(mux)
	z.issuer = "https://" + srv.Listener.Addr().String() // another site than the portal's
	dialer := &tls.Config{}
	var site string
	s := newScene(t, func(who *identity.Options, o *Options) {
		who.Vouched = true
		site = who.Site
		own := oidcsignin.Options{Issuer: z.issuer, ClientID: clientID, ClientSecret: clientSecret, Redirect: site + "/sign-in/oidc/callback", Scopes: []string{"openid", "profile", "email"},
			AddressClaim: "email", GroupsClaim: "groups", FactorAMR: []string{"mfa"}, TLS: dialer, Log: o.Log}
		o.Provider, o.ProviderName = oidcsignin.New(own), "Example ID"
	})
	dialer.RootCAs = s.ca.Pool
	user := func(id, address string) *storage.User {
		return &storage.User{ID: id, Username: id, Password: "rosebud-and-a-half", FirstName: "A", LastName: "B", Email: address, EmailVerified: id != "eve", PreferredLanguage: language.English}
	}
	z.Storage = storage.NewStorageWithClients(colleagues{"alice": user("alice", alice), "bob": user("bob", bob), "eve": user("eve", alice)},
		map[string]*storage.Client{clientID: storage.WebClient(clientID, clientSecret, site+"/sign-in/oidc/callback")})
	key, err := z.SigningKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	z.key, z.keyID = key.Key().(*rsa.PrivateKey), key.ID()
	var secret [32]byte
	rand.Read(secret[:])
	if z.provider, err = op.NewProvider(&op.Config{CryptoKey: secret, CodeMethodS256: true, DefaultLogoutRedirectURI: "/"}, z, op.StaticIssuer(z.issuer),
		op.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil)))); err != nil {
		t.Fatal(err)
	}
	mux.HandleFunc("/login/username", z.login)
	mux.Handle("/", z.provider)
	_, _, cert := s.ca.Issue()
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return z, s
}

// The whole way in a real browser, at a provider that others wrote: in, a fresh second factor, and out from there.
func TestRealProvider(t *testing.T) {
	t.Parallel()
	z, s := newZitadel(t)
	a := s.account(alice)
	b := testlab.Browser(t, s.ca)
	page := b.Page(t)
	login := func(page *testlab.Page, name string, factor bool) *testlab.Page {
		page.Fill("User name", name).Fill("Password at Example ID", "rosebud-and-a-half")
		if factor {
			page.Tick("I have my key with me")
		}
		return page.Click("Log in")
	}
	page.Open(s.site + "/history").HasText("Sign in with Example ID").HasNoText("Primary password")
	page.FitsWidth().Axe().Phone().FitsWidth().Axe().Desktop()
	page.Click("Sign in with Example ID").HasText("I have my key with me")
	login(page, "alice", true).At("/history").HasText("signed in through your sign-in provider for the first time")
	person, err := s.store.Person(t.Context(), a.ID)
	if err != nil || len(person.Ties) != 1 || person.Ties[0].Subject != "alice" || person.Ties[0].Issuer != z.issuer || person.Zone != "UTC" {
		t.Errorf("the person is %+v, %v", person, err)
	}
	s.pass(6 * time.Minute) // longer than a second factor counts
	page.Open(s.site + "/passwords/new").HasText("You give it at Example ID and come back here").FitsWidth().Axe().Phone().FitsWidth().Axe().Desktop()
	page.Click("Confirm with Example ID")
	login(page, "bob", true).HasText("That is not your account")
	page.FitsWidth().Axe().Click("Confirm with Example ID")
	login(page, "alice", false).HasText("does not say that you gave your second factor there just now")
	page.Click("Confirm with Example ID")
	login(page, "alice", true).At("/passwords/new")
	page.Fill("Which app or device is it for?", "Laptop").Tick("Mail").Click("Make app password").HasText("It is shown only now.")

	stranger := b.Page(t)
	stranger.Open(s.site + "/sign-in").Click("Sign in with Example ID")
	login(stranger, "bob", true).HasText("you have no account here").FitsWidth().Axe()
	stranger.Languages("de").Open(s.site + "/sign-in").Click("Mit Example ID anmelden")
	login(stranger, "eve", true).HasText("hat Ihre E-Mail-Adresse nicht bestätigt").FitsWidth().Axe().Phone().FitsWidth().Axe()
	stranger.Click("Noch einmal mit Example ID")
	login(stranger, "alice", false).HasText("sagt nicht, dass Sie dort Ihren zweiten Faktor angegeben haben")

	told := &idp{scene: s, issuer: z.issuer, wrongs: wrongs{}}
	token := told.logout(map[string]any{"sub": "alice", "sid": nil, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix()}, wrongs{sign: signedBy(z.key), head: func(h map[string]any) { h["kid"] = z.keyID }})
	if got := told.ends(token); got != http.StatusOK {
		t.Fatalf("the logout token: %d\n%s", got, s.log)
	}
	page.Open(s.site + "/security").HasText("You are not signed in any more").Click("Sign in with Example ID")
	login(page, "alice", true).At("/security").HasText("You sign in with Example ID")
	page.Click("Sign out").HasText("You are signed out").HasText("Sign out of Example ID too").FitsWidth().Axe()
	if strings.Contains(s.log.String(), "rosebud-and-a-half") || strings.Contains(s.log.String(), clientSecret) || strings.Contains(s.log.String(), "eyJ") {
		t.Errorf("the log holds secrets:\n%s", s.log)
	}
	if list, err := s.accounts.Passwords(t.Context(), a.ID, false); err != nil || len(list) != 1 {
		t.Error(errors.Join(err, errors.New("the app password is gone")))
	}
}
