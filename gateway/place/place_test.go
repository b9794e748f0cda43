package place

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"golang.org/x/text/language"
)

// write writes a database; its records stand by network.
func write(t *testing.T, path string, records map[string]mmdbtype.Map) {
	t.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "Test", IncludeReservedNetworks: true})
	if err != nil {
		t.Fatal(err)
	}
	for network, record := range records {
		_, n, err := net.ParseCIDR(network)
		if err == nil {
			err = tree.Insert(n, record)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(path + ".new")
	if err == nil {
		_, err = tree.WriteTo(f)
	}
	if err == nil {
		err = f.Close()
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func country(code string) mmdbtype.Map {
	return mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String(code)}}
}

func operator(number uint32, name string) mmdbtype.Map {
	return mmdbtype.Map{"autonomous_system_number": mmdbtype.Uint32(number), "autonomous_system_organization": mmdbtype.String(name)}
}

func TestAtlas(t *testing.T) {
	dir := t.TempDir()
	countries, operators := filepath.Join(dir, "country.mmdb"), filepath.Join(dir, "asn.mmdb")
	write(t, countries, map[string]mmdbtype.Map{"192.0.2.0/24": country("DE"), "2001:db8::/32": country("FR"), "198.51.100.0/24": {}})
	write(t, operators, map[string]mmdbtype.Map{"192.0.2.0/24": operator(64496, "Example\r\nNet"), "2001:db8::/32": operator(64497, ""),
		"203.0.113.0/24": {"autonomous_system_organization": mmdbtype.String("nobody")}, "198.51.100.0/24": operator(64498, strings.Repeat("ä", 100))})
	var log strings.Builder
	a, err := Open(countries, operators, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string][2]string{
		"192.0.2.7":        {"DE", "AS64496 Example  Net"},
		"::ffff:192.0.2.7": {"DE", "AS64496 Example  Net"},
		"2001:db8::1":      {"FR", "AS64497"},
		"198.51.100.1":     {"", "AS64498 " + strings.Repeat("ä", 50)},
		"203.0.113.1":      {"", ""},
		"10.0.0.1":         {"", ""},
	} {
		addr := netip.MustParseAddr(addr)
		if got := [2]string{a.Country(addr), a.Operator(addr)}; got != want {
			t.Errorf("%v is in %q, want %q", addr, got, want)
		}
	}
	if got := a.Country(netip.Addr{}) + a.Operator(netip.Addr{}); got != "" {
		t.Errorf("no address is in %q", got)
	}

	here := netip.MustParseAddr("192.0.2.7")
	write(t, countries, map[string]mmdbtype.Map{"192.0.2.0/24": country("AT")})
	if got := a.Country(here); got != "DE" {
		t.Errorf("within the minute: %q", got)
	}
	aMinutePasses := func() { a.countries.checked.Store(time.Now().Add(-2 * checkEvery).UnixNano()) }
	aMinutePasses()
	if got := a.Country(here); got != "AT" {
		t.Errorf("after the minute: %q", got)
	}
	for what, spoil := range map[string]func() error{
		"garbage": func() error { return os.WriteFile(countries, []byte("garbage"), 0o600) },
		"nothing": func() error { return os.Remove(countries) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		log.Reset()
		aMinutePasses()
		if got := a.Country(here); got != "AT" || !strings.Contains(log.String(), "can't be read again") {
			t.Errorf("with %s in its place: %q, log %q", what, got, log.String())
		}
		os.WriteFile(countries, nil, 0o600)
	}
}

func TestNoFiles(t *testing.T) {
	here := netip.MustParseAddr("192.0.2.7")
	none, err := Open("", "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []*Atlas{nil, {}, none} {
		if got := a.Country(here) + a.Operator(here); got != "" {
			t.Errorf("without files: %q", got)
		}
	}
	garbage := filepath.Join(t.TempDir(), "g")
	os.WriteFile(garbage, []byte("garbage"), 0o600)
	for path, want := range map[string]string{garbage: "no database in MaxMind's format", garbage + "x": "no such file"} {
		if _, err := Open(path, "", slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%s): %v, want %q", path, err, want)
		}
	}
}

func TestCountryName(t *testing.T) {
	for _, tt := range []struct{ code, in, want string }{
		{"DE", "en", "Germany"}, {"DE", "de", "Deutschland"}, {"GB", "de", "Vereinigtes Königreich"}, {"", "en", ""}, {"rubbish", "en", "rubbish"},
		{"XK", "en", "Kosovo"}, {"FR", "de-AT", "Frankreich"},
	} {
		if got := CountryName(tt.code, language.Make(tt.in)); got != tt.want {
			t.Errorf("CountryName(%q, %s) = %q, want %q", tt.code, tt.in, got, tt.want)
		}
	}
}
