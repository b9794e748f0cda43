package gateway

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"postern/authstore"
	"postern/config"
	"postern/internal/testlab"
)

func resolverAt(address string) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
}

// everyService is a configuration with all listeners.
func everyService() *config.Config {
	cfg := &config.Config{Hostname: "mail.example.test"}
	for _, l := range [][3]string{{"imap", ":993", "implicit"}, {"imap", ":143", "starttls"}, {"submission", ":465", "implicit"}, {"submission", ":587", "starttls"}, {"pop3", ":995", "implicit"},
		{"managesieve", ":4190", "starttls"}, {"dav", ":8443", "implicit"}, {"portal", ":8443", "implicit"}} {
		cfg.Listeners = append(cfg.Listeners, config.Listener{Protocol: l[0], Address: l[1], TLS: l[2]})
	}
	for _, word := range []string{"imap", "submission", "pop3", "managesieve", "calendar", "contacts"} {
		cfg.Routes = append(cfg.Routes, config.Route{Domain: "*", Protocol: word, Backend: "x"})
	}
	return cfg
}

const everyRecord = `; for the zone of example.test: apps find everything by the mail address alone (RFC 6764, RFC 6186, RFC 8314)
_caldavs._tcp.example.test.      IN SRV  0 1 8443 mail.example.test.
_caldavs._tcp.example.test.      IN TXT  "path=/dav/"
_carddavs._tcp.example.test.     IN SRV  0 1 8443 mail.example.test.
_carddavs._tcp.example.test.     IN TXT  "path=/dav/"
_imaps._tcp.example.test.        IN SRV  0 1 993 mail.example.test.
_imap._tcp.example.test.         IN SRV  10 1 143 mail.example.test.
_pop3s._tcp.example.test.        IN SRV  20 1 995 mail.example.test.
_submissions._tcp.example.test.  IN SRV  0 1 465 mail.example.test.
_submission._tcp.example.test.   IN SRV  10 1 587 mail.example.test.
_sieve._tcp.example.test.        IN SRV  0 1 4190 mail.example.test.

`

// The records are as a zone takes them, and are found when they are there as printed.
func TestDNSRecords(t *testing.T) {
	t.Parallel()
	cfg := everyService()
	var zone bytes.Buffer
	cfg.DefaultDomain = "example.test"
	dead, cancel := context.WithCancel(t.Context())
	cancel()
	checkRecords(dead, cfg, nil, resolverAt("127.0.0.1:1"), &zone, func(Finding) {})
	if zone.String() != everyRecord {
		t.Errorf("printed\n%s\nwant\n%s", zone.String(), everyRecord)
	}
	lines := []string{"host-record=mail.example.test,192.0.2.1"}
	for line := range strings.Lines(zone.String()) { // into dnsmasq's words
		f := strings.Fields(line)
		switch {
		case len(f) == 7 && f[2] == "SRV":
			lines = append(lines, "srv-host="+strings.Join([]string{strings.TrimSuffix(f[0], "."), strings.TrimSuffix(f[6], "."), f[5], f[3], f[4]}, ","))
		case len(f) == 4 && f[2] == "TXT":
			lines = append(lines, "txt-record="+strings.TrimSuffix(f[0], ".")+","+f[3])
		}
	}
	var said []string
	resolver := resolverAt(testlab.DNS(t, lines...))
	checkRecords(t.Context(), cfg, nil, resolver, new(bytes.Buffer), func(f Finding) { said = append(said, f.Text()) })
	want := []string{
		"ok    dns mail.example.test: 192.0.2.1",
		"ok    dns _caldavs._tcp.example.test: leads to mail.example.test:8443/dav/", "ok    dns _carddavs._tcp.example.test: leads to mail.example.test:8443/dav/",
		"ok    dns _imaps._tcp.example.test: leads to mail.example.test:993", "ok    dns _imap._tcp.example.test: leads to mail.example.test:143",
		"ok    dns _pop3s._tcp.example.test: leads to mail.example.test:995",
		"ok    dns _submissions._tcp.example.test: leads to mail.example.test:465", "ok    dns _submission._tcp.example.test: leads to mail.example.test:587",
		"ok    dns _sieve._tcp.example.test: leads to mail.example.test:4190",
	}
	if strings.Join(said, "\n") != strings.Join(want, "\n") {
		t.Errorf("said\n%s\nwant\n%s", strings.Join(said, "\n"), strings.Join(want, "\n"))
	}
}

// What is not right is told with the remedy.
func TestDNSRecordsThatAreWrong(t *testing.T) {
	t.Parallel()
	resolver := resolverAt(testlab.DNS(t,
		"host-record=mail.example.test,192.0.2.1",
		"srv-host=_caldavs._tcp.elsewhere.test,old.example.test,443",
		"srv-host=_caldavs._tcp.port.test,mail.example.test,443",
		"srv-host=_caldavs._tcp.never.test",
		"srv-host=_caldavs._tcp.path.test,mail.example.test,8443", "txt-record=_caldavs._tcp.path.test,\"path=/radicale/\"",
		"srv-host=_caldavs._tcp.root.test,MAIL.example.test,8443", "txt-record=_caldavs._tcp.root.test,\"v=1\"", "txt-record=_caldavs._tcp.root.test,\"path=/\"",
		"srv-host=_caldavs._tcp.nopath.test,mail.example.test,8443",
		"srv-host=_caldavs._tcp.two.test,mail.example.test,8443,0", "srv-host=_caldavs._tcp.two.test,old.example.test,443,5", "txt-record=_caldavs._tcp.two.test,\"path=/dav/\"",
		"srv-host=_caldav._tcp.plain.test,old.example.test,80",
		"srv-host=_imap._tcp.starttls.test,mail.example.test,143",
	))
	const tail = "; change it to the record above"
	for domain, want := range map[string]string{
		"missing.test":   "FAIL  dns _caldavs._tcp.missing.test: it is missing, so apps can't find mail.example.test:8443 by the mail address; add the record above",
		"never.test":     "FAIL  dns _caldavs._tcp.never.test: it is missing",
		"elsewhere.test": "FAIL  dns _caldavs._tcp.elsewhere.test: it leads to old.example.test:443, not to mail.example.test:8443" + tail,
		"port.test":      "FAIL  dns _caldavs._tcp.port.test: it leads to mail.example.test:443, not to mail.example.test:8443" + tail,
		"path.test":      "FAIL  dns _caldavs._tcp.path.test: its TXT record says path=/radicale/, where nothing is; change it to \"path=/dav/\"",
		"root.test":      "ok    dns _caldavs._tcp.root.test: leads to mail.example.test:8443/\n",
		"nopath.test":    "ok    dns _caldavs._tcp.nopath.test: leads to mail.example.test:8443; it has no TXT record with the path, so apps have to ask once more",
		"less.test":      "ok    dns _submission._tcp.less.test: not there; apps take the one with TLS from the start",
		"two.test":       "ok    dns _caldavs._tcp.two.test: leads to mail.example.test:8443/dav/; some apps are led to old.example.test:443 as well",
		"starttls.test":  "FAIL  dns _imap._tcp.starttls.test: it leads to mail.example.test:143, but no listener is there; take the record out, or add the listener",
	} {
		cfg := everyService()
		cfg.Listeners = append(cfg.Listeners[:1], cfg.Listeners[2:]...) // IMAP with TLS from the start only
		said := ""
		accounts := []authstore.Account{{Names: []string{"alice@" + domain}}}
		checkRecords(t.Context(), cfg, accounts, resolver, new(bytes.Buffer), func(f Finding) { said += f.Text() + "\n" })
		if !strings.Contains(said, want) {
			t.Errorf("%s: said\n%s\nwant %q in it", domain, said, want)
		}
	}
}

// A proxy in front has a port of its own, and what does not answer is not asked on and on.
func TestDNSElsewhere(t *testing.T) {
	t.Parallel()
	cfg := everyService()
	cfg.DefaultDomain = "example.test"
	cfg.Listeners = []config.Listener{{Protocol: "dav", Address: "127.0.0.1:8080", TLS: "none"}}
	resolver := resolverAt(testlab.DNS(t, "host-record=mail.example.test,192.0.2.1", "srv-host=_caldavs._tcp.example.test,mail.example.test,8443", "txt-record=_caldavs._tcp.example.test,\"path=/dav/\""))
	var zone bytes.Buffer
	said := ""
	checkRecords(t.Context(), cfg, nil, resolver, &zone, func(f Finding) { said += f.Text() + "\n" })
	if want := "IN SRV  0 1 443 mail.example.test. ; the port of the proxy in front\n"; !strings.Contains(zone.String(), want) || strings.Contains(zone.String(), "_imap") {
		t.Errorf("printed\n%s", zone.String())
	}
	if want := "ok    dns _caldavs._tcp.example.test: leads to mail.example.test:8443/dav/\n"; !strings.Contains(said, want) {
		t.Errorf("said %s", said)
	}

	for name, tt := range map[string]struct {
		cfg      func(*config.Config)
		resolver *net.Resolver
		want     string
	}{
		"no address":      {func(c *config.Config) { c.Hostname = "gone.example.test" }, resolver, "FAIL  dns gone.example.test: the name that apps are led to has no address; add an A or AAAA record"},
		"no name":         {func(c *config.Config) { c.Hostname = "localhost" }, resolver, "set hostname to the name that stands in the certificate"},
		"no name but one": {func(c *config.Config) { c.Hostname = "192.0.2.1" }, resolver, "set hostname to the name that stands in the certificate"},
		"no domain":       {func(c *config.Config) { c.DefaultDomain = "" }, resolver, "ok    dns: nothing to look for; no account and no route names a domain"},
		"nobody answers":  {func(*config.Config) {}, resolverAt("127.0.0.1:1"), "FAIL  dns mail.example.test: DNS gave no answer"},
		"nothing is said": {func(*config.Config) {}, resolverAt(silentDNS(t)), "FAIL  dns mail.example.test: DNS gave no answer"},
	} {
		c := *cfg
		tt.cfg(&c)
		said = ""
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // the test's own patience
		checkRecords(ctx, &c, nil, tt.resolver, new(bytes.Buffer), func(f Finding) { said += f.Text() + "\n" })
		cancel()
		if !strings.Contains(said, tt.want) || (strings.HasPrefix(name, "no") && name != "no address" && strings.Count(said, "\n") != 1) {
			t.Errorf("%s: said\n%s\nwant %q", name, said, tt.want)
		}
	}
}

// silentDNS takes questions and never answers.
func silentDNS(t *testing.T) string {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	return pc.LocalAddr().String()
}

// A server that --resolver names and that does not answer is blamed itself, and not the system's, which nobody asked.
func TestDNSOfAWrongResolver(t *testing.T) {
	t.Parallel()
	var found []string
	checkRecords(t.Context(), everyService(), []authstore.Account{{Names: []string{"alice@example.test"}}}, resolverAt("127.0.0.1:1"), io.Discard, func(f Finding) { found = append(found, f.Text()) })
	if len(found) != 1 || !strings.Contains(found[0], "the server that --resolver names can't be asked") || strings.Contains(found[0], "resolv.conf") || strings.Contains(found[0], " on ") {
		t.Errorf("found %q", found)
	}
}
