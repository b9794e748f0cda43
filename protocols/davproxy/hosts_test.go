package davproxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"postern/internal/testlab"
	"postern/protocols"
	"postern/protocols/davproxy"
)

const otherHost = "passwords.example.test"

// guest answers under another name, and says what it saw.
func guest(hosts ...string) func(*davproxy.Options) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<10))
		fmt.Fprintf(w, "guest %s %s %q %v", r.Method, r.URL.Path, body, err)
	})
	return func(o *davproxy.Options) {
		o.Hosts = make(map[string]http.Handler)
		for _, host := range hosts {
			o.Hosts[host] = h
		}
	}
}

// doAt is do under a name.
func (d *door) doAt(client *http.Client, host, password, method, path, body string) answer {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), method, d.url+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	req.Host = host
	if password != "" {
		req.SetBasicAuth(testlab.Alice, password)
	}
	resp, err := client.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return answer{resp, string(text)}
}

// Under its name the guest gets all requests and DAV none, and the other way round: over the same connection, and whatever the path.
func TestHosts(t *testing.T) {
	t.Parallel()
	d := open(t, routes{}, guest(otherHost))
	for _, h2 := range []bool{false, true} {
		client := d.newClient(h2)
		for name, tt := range map[string]struct {
			host, method, path string
			guest              bool
		}{
			"the guest's name":  {otherHost, "GET", "/", true},
			"with a port":       {otherHost + ":8443", "GET", "/", true},
			"in capitals":       {"Passwords.Example.TEST", "GET", "/", true},
			"with a dot":        {otherHost + ".:443", "POST", "/sign-in", true},
			"a path of DAV":     {otherHost, "PROPFIND", "/dav/", true},
			"a well-known path": {otherHost, "GET", "/.well-known/caldav", true},
			"another name":      {"mail.example.test", "GET", "/sign-in", false},
			"a name around it":  {"x." + otherHost, "GET", "/", false},
			"an address":        {"[::1]:443", "GET", "/", false},
			"DAV's":             {"mail.example.test", "PROPFIND", "/dav/", false},
			"both names":        {otherHost + ",mail.example.test", "GET", "/", false},
		} {
			a := d.doAt(client, tt.host, "", tt.method, tt.path, "name=x")
			if got := strings.HasPrefix(a.text, "guest"); got != tt.guest || a.ProtoMajor == 2 != h2 {
				t.Errorf("%s: HTTP/%d, guest %v, want %v: %d %s", name, a.ProtoMajor, got, tt.guest, a.StatusCode, a.text)
			}
			if tt.guest && (a.Header.Get("Content-Security-Policy") != "" || a.Header.Get("WWW-Authenticate") != "") {
				t.Errorf("%s: DAV's headers: %v", name, a.Header)
			}
		}
		client.CloseIdleConnections()
	}
	if len(d.verifier.attempts) > 0 {
		t.Errorf("attempts %v", d.verifier.attempts)
	}
	if a := d.doAt(d.client, otherHost, "both", "PROPFIND", "/dav/", ""); len(d.verifier.attempts) > 0 || !strings.HasPrefix(a.text, "guest") {
		t.Errorf("an app password was looked at under the guest's name: %s", a.text)
	}
}

// An absolute URL names the host, whatever the header says (RFC 9112 section 3.2.2).
func TestHostsByAbsoluteURL(t *testing.T) {
	t.Parallel()
	d := open(t, routes{}, guest(otherHost))
	nc, r := d.dial()
	for url, want := range map[string]string{"https://" + otherHost + "/x": "guest", "https://mail.example.test/dav/": ""} {
		fmt.Fprintf(nc, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", url, map[string]string{"": otherHost, "guest": "mail.example.test"}[want])
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		if got := strings.HasPrefix(string(text), "guest"); got != (want != "") {
			t.Errorf("%s: %s", url, text)
		}
	}
}

// A connection to the guest counts as one that has not logged in, as long as it stands.
func TestHostsCountAsNotLoggedIn(t *testing.T) {
	t.Parallel()
	d := open(t, routes{}, guest(otherHost), func(o *davproxy.Options) {
		o.Limits = &protocols.Limits{PreAuthPerNetwork: 2}
		o.TrustedProxies = protocols.TrustedProxies{netip.MustParsePrefix("127.0.0.0/8")}
	})
	get := func(client string) (*http.Response, *bufio.Reader) {
		nc, r := d.dial()
		fmt.Fprintf(nc, "GET / HTTP/1.1\r\nHost: %s\r\nX-Forwarded-For: %s\r\n\r\n", otherHost, client)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp, r
	}
	for i, want := range []int{200, 200, 503} {
		if resp, _ := get("192.0.2.7"); resp.StatusCode != want {
			t.Errorf("connection %d: %s, want %d", i, resp.Status, want)
		}
	}
	if resp, _ := get("192.0.2.8"); resp.StatusCode != 200 {
		t.Errorf("from another network: %s", resp.Status)
	}
}

// Draining waits for requests under way, as for those of DAV.
func TestHostsDrain(t *testing.T) {
	t.Parallel()
	began, end := make(chan struct{}), make(chan struct{})
	d := open(t, routes{}, func(o *davproxy.Options) {
		o.Hosts = map[string]http.Handler{otherHost: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(began)
			<-end
			io.WriteString(w, "done")
		})}
	})
	nc, r := d.dial()
	fmt.Fprintf(nc, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", otherHost)
	next(t, "the request", began)
	d.drain()
	time.Sleep(50 * time.Millisecond)
	close(end)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := io.ReadAll(resp.Body); string(text) != "done" {
		t.Errorf("answer %q", text)
	}
}
