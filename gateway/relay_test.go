package gateway

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/config"
	"postern/internal/testlab"
)

// What "postern check" says of the server that takes notices; nothing is sent.
func TestProbeRelay(t *testing.T) {
	t.Parallel()
	p := testlab.Postfix(t)
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("secret\n"), 0o400); err != nil {
		t.Fatal(err)
	}
	bare, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer bare.Close()
	go func() {
		for {
			nc, err := bare.Accept()
			if err != nil {
				return
			}
			io.WriteString(nc, "220 bare\r\n250 bare\r\n221 bye\r\n")
			go func() { io.Copy(io.Discard, nc); nc.Close() }()
		}
	}()
	for name, tt := range map[string]struct {
		notices config.Notices
		want    string // empty: all is well
	}{
		"STARTTLS":         {config.Notices{Address: p.Submission, TLS: "starttls", CAFile: p.CAFile, User: "postern", PasswordFile: password}, ""},
		"plain text":       {config.Notices{Address: bare.Addr().String(), TLS: "none"}, ""},
		"unknown CA":       {config.Notices{Address: p.Submission, TLS: "starttls"}, "name the authority's certificate as ca_file"},
		"another name":     {config.Notices{Address: p.Submission, TLS: "starttls", CAFile: p.CAFile, ServerName: "other.test"}, "its certificate is for another name"},
		"no TLS":           {config.Notices{Address: p.Submission, TLS: "implicit", CAFile: p.CAFile}, `set tls = "starttls"`},
		"no STARTTLS":      {config.Notices{Address: bare.Addr().String(), TLS: "starttls", CAFile: p.CAFile}, "it does not offer STARTTLS"},
		"no login":         {config.Notices{Address: bare.Addr().String(), TLS: "none", User: "postern", PasswordFile: password}, "it offers no login"},
		"nobody":           {config.Notices{Address: "127.0.0.1:1", TLS: "none"}, "nobody listens there"},
		"no password file": {config.Notices{Address: p.Submission, TLS: "starttls", CAFile: p.CAFile, User: "postern", PasswordFile: "/nowhere"}, "password_file"},
	} {
		t.Run(name, func(t *testing.T) {
			err := probeRelay(t.Context(), &tt.notices)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	if p.Stop(); strings.Contains(p.Log(), "from=<") {
		t.Errorf("a mail was sent:\n%s", p.Log())
	}
}

// A certificate must be for the portal's name, unless something in front has it.
func TestCheckPortalName(t *testing.T) {
	ca := testlab.NewCA(t)
	cert, key, _ := ca.Issue("mail.example.test")
	for name, tt := range map[string]struct {
		url, tls string
		wrong    bool
	}{
		"covered":        {"https://mail.example.test:8443", "implicit", false},
		"not covered":    {"https://passwords.example.test", "implicit", true},
		"behind a proxy": {"https://passwords.example.test", "insecure", false},
	} {
		cfg := &config.Config{TLS: config.TLS{Certificates: []config.Certificate{{Cert: cert, Key: key}}},
			Listeners: []config.Listener{{Protocol: "portal", Address: ":8443", TLS: tt.tls}}, Portal: config.Portal{URL: tt.url}}
		var said string
		checkCertificates(cfg, func(f Finding) { said += f.Text() + "\n" })
		if got := strings.Contains(said, "FAIL  portal: no certificate is for passwords.example.test"); got != tt.wrong {
			t.Errorf("%s: said %s", name, said)
		}
	}
}
