package davproxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"postern/internal/testlab"
	"postern/protocols/davproxy"
)

// TestBehindNginx: on another port, host and scheme than Postern's own, everything leads to where the app came in.
func TestBehindNginx(t *testing.T) {
	t.Parallel()
	b := testlab.Radicale(t)
	d := open(t, routes{"calendar": to(b), "contacts": to(b)}, func(o *davproxy.Options) {
		o.TLS, o.TrustedProxies = nil, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	ports := testlab.Ports(t, 2)
	cert, key, _ := d.ca.Issue("dav.example.test")
	testlab.Nginx(t, ports[1], fmt.Sprintf(`
		listen 127.0.0.1:%d ssl http2;
		listen 127.0.0.1:%d;
		ssl_certificate %s;
		ssl_certificate_key %s;
		client_max_body_size 21m;
		location / {
			proxy_pass %s;
			proxy_http_version 1.1;
			proxy_request_buffering off;
			proxy_set_header Host $http_host;
			proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
			proxy_set_header X-Forwarded-Proto $scheme;
			proxy_set_header X-Forwarded-Host elsewhere.example.test;
			proxy_set_header X-Forwarded-Port 1;
			proxy_set_header X-Forwarded-Prefix /elsewhere;
		}`, ports[0], ports[1], cert, key, d.url))
	outside := fmt.Sprintf("https://localhost:%d", ports[0])
	d.url = outside
	d.want(201, "both", "MKCALENDAR", cal+"work/", makeCal)
	d.want(201, "both", "PUT", cal+"work/1.ics", testlab.Event("1"))
	d.want(201, "both", "MKCOL", card+"friends/", makeCard)
	d.want(201, "both", "PUT", card+"friends/1.vcf", testlab.Card("1"))
	for app, steps := range sequences {
		t.Run(app, func(t *testing.T) { play(t, d, "both", steps) })
	}
	for _, destination := range []string{cal + "work/2.ics", outside + cal + "work/1.ics", strings.ToUpper(outside[:17]) + outside[17:] + cal + "work/2.ics"} {
		from := "1.ics"
		if strings.HasSuffix(destination, "work/1.ics") {
			from = "2.ics"
		}
		if a := d.do("both", "MOVE", cal+"work/"+from, "", "Destination", destination); a.StatusCode/100 != 2 {
			t.Errorf("MOVE to %s: %d %s", destination, a.StatusCode, a.text)
		}
	}
	d.want(400, "both", "MOVE", cal+"work/2.ics", "", "Destination", "https://elsewhere.example.test"+cal+"work/1.ics")
	text := d.want(207, "both", "PROPFIND", cal+"work/", askAll, "Depth", "1").text
	for _, word := range []string{"elsewhere", "http:", "https:"} {
		if strings.Contains(text, ">"+word) {
			t.Errorf("hrefs with %q:\n%s", word, text)
		}
	}
}

// TestWellKnown: before any login, by any method and under any name and port, apps are led on by a path alone.
func TestWellKnown(t *testing.T) {
	t.Parallel()
	d := open(t, routes{}, func(o *davproxy.Options) { o.TLS = nil })
	for _, path := range []string{"/.well-known/caldav", "/.well-known/carddav", "/.well-known/caldav/", "/.well-known/carddav/"} {
		for _, method := range []string{"GET", "HEAD", "PROPFIND", "OPTIONS", "REPORT", "POST", "PUT", "DELETE", "MKCOL", "TRACE", "BREW"} {
			for _, line := range []string{"Host: x", "Host: dav.example.test:8443", "Host: [::1]:8443", "Host: x\r\nAuthorization: Basic bad", "Host: x\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: evil.example",
				"Host: x\r\nForwarded: host=evil.example;proto=http", "Host: x\r\nX-Original-URL: /evil/\r\nX-Rewrite-URL: /evil/"} {
				nc, err := net.Dial("tcp", strings.TrimPrefix(d.url, "http://"))
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(nc, "%s %s HTTP/1.1\r\n%s\r\nConnection: close\r\n\r\n", method, path, line)
				resp, err := http.ReadResponse(bufio.NewReader(nc), &http.Request{Method: method})
				if err != nil {
					t.Fatalf("%s %s with %q: %v", method, path, line, err)
				}
				rest, _ := io.ReadAll(resp.Body)
				nc.Close()
				if got := resp.Header.Values("Location"); resp.StatusCode != 301 || len(got) != 1 || got[0] != "/dav/" || resp.Header.Get("WWW-Authenticate") != "" || len(rest) > 0 {
					t.Errorf("%s %s with %q: %d to %q, %q", method, path, line, resp.StatusCode, got, rest)
				}
			}
		}
	}
	if attempts, _ := d.verifier.counts(); attempts != 0 {
		t.Errorf("%d attempts to log in", attempts)
	}
}
