package portal

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"postern/authstore/identity"
)

// A form may be on its way for half a minute. Whoever was signed in when it began and is not when it has come makes nothing: the app
// password would outlive the primary password that its maker was thrown out with.
func TestAFormThatComesAfterItsSessionHasEnded(t *testing.T) {
	t.Parallel()
	p := newLab(t, nil).person(alice)
	body, rest := io.Pipe()
	form := url.Values{"label": {"evil"}, "preset": {"mail"}, "expires": {"never"}, "app": {"other"}, "request": {"one"}}.Encode()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.site+"/passwords/new", body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answered := make(chan *http.Response)
	go func() {
		defer close(answered)
		if resp, err := p.browser.Do(r); err == nil {
			resp.Body.Close()
			answered <- resp
		}
	}()
	io.WriteString(rest, form[:5])
	time.Sleep(200 * time.Millisecond) // for the server to have begun

	ctx := context.Background()
	v := identity.Visitor{Client: netip.MustParseAddr("192.0.2.7")}
	s, err := p.people.Session(ctx, v, p.token)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.people.SignOut(ctx, v, s); err != nil {
		t.Fatal(err)
	}
	io.WriteString(rest, form[5:])
	rest.Close()
	resp := <-answered
	if resp == nil || resp.StatusCode != http.StatusSeeOther || !strings.HasPrefix(resp.Header.Get("Location"), "/sign-in") {
		t.Errorf("the answer is %+v, want the sign-in", resp)
	}
	if made := p.active(); len(made) != 0 {
		t.Errorf("app passwords were made: %+v", made)
	}
}

// What is wrong with a form that no browser sends may be part of a password, and strangers must not fill the log with errors.
func TestABrokenFormIsNotLogged(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	l := newLab(t, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: l.ca.Pool}}}
	for _, path := range []string{"/sign-in", "/sign-in?a;b", "/invitation/x", "/passwords/new"} {
		resp, err := c.Post(l.site+path, "application/x-www-form-urlencoded", strings.NewReader("password=sec%ret"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("POST %s: %s, want 400", path, resp.Status)
		}
	}
	if log.Len() > 0 {
		t.Errorf("the log says %s", log.String())
	}
}
