package directory

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/authstore/identity"
	"postern/internal/testlab"
	"postern/protocols"
)

const (
	alice = testlab.Alice
	bob   = testlab.Bob
)

func options(s *testlab.SlapdServer) Options {
	return Options{
		Route: &protocols.Route{Backend: "portal.ldap", Network: "tcp", Address: s.TLS, Security: protocols.ImplicitTLS,
			TLS: &tls.Config{RootCAs: s.CA.Pool, ServerName: "ldap.example.test"}},
		BindDN: testlab.SlapdReader, Password: func() ([]byte, error) { return []byte(s.Password), nil },
		Base: testlab.SlapdPeople, Filter: "(&(objectClass=person)(|(mail={address})(uid={local})))", Disabled: "(pwdAccountLockedTime=000001010000Z)",
		Address: "mail", Subject: "entryUUID", Groups: "memberOf", Changed: "pwdChangedTime", GroupsBy: "(member={dn})",
		Log: slog.New(slog.DiscardHandler),
	}
}

// startTLS is the same over the port that begins in plain text.
func withStartTLS(s *testlab.SlapdServer) Options {
	o := options(s)
	r := *o.Route
	r.Address, r.Security = s.Addr, protocols.StartTLS
	o.Route = &r
	return o
}

func directory(t *testing.T, o Options) *Directory {
	t.Helper()
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func wantCheck(t *testing.T, d *Directory, what, address, password string, want error) identity.Claims {
	t.Helper()
	c, err := d.Check(t.Context(), address, []byte(password))
	if want == nil && err != nil || !errors.Is(err, want) {
		t.Errorf("%s: Check = %v, want %v", what, err, want)
	}
	if err != nil && len(password) > 5 && strings.Contains(err.Error(), password) {
		t.Errorf("%s: the error tells the password: %v", what, err)
	}
	return c
}

// A real server, over each kind of connection.
func TestSlapd(t *testing.T) {
	t.Parallel()
	s := testlab.Slapd(t, 0)
	s.AddPerson("jörg", "grüße", "joerg@example.test")
	s.AddPerson("odd", "odd-password", `o'd(d)*\\x@example.test`)
	s.Add(testlab.PersonDN("nopassword"), map[string][]string{"objectClass": {"inetOrgPerson"}, "cn": {"n"}, "sn": {"n"}, "mail": {"nopassword@example.test"}})
	s.AddPerson("twin1", "twin-password", "twin@example.test")
	s.AddPerson("twin2", "twin-password", "twin@example.test")
	s.AddPerson("triplet", "twin-password", "twin@example.test")
	s.AddPerson("locked", "locked-password", "locked@example.test")
	s.Set(testlab.PersonDN("locked"), "pwdAccountLockedTime", "000001010000Z")
	plain := options(s)
	plain.Route = &protocols.Route{Network: "tcp", Address: s.Addr}
	for name, o := range map[string]Options{"implicit": options(s), "starttls": withStartTLS(s), "none": plain} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := directory(t, o)
			right := testlab.Primary(alice)
			for range 3 { // over a connection that is kept, too
				c := wantCheck(t, d, "right", alice, right, nil)
				if c.Issuer != "ldap" || len(c.Subject) != 36 || !slices.Equal(c.Addresses, []string{alice}) ||
					!slices.Contains(c.Groups, "cn=staff,"+testlab.SlapdGroups) || len(c.Groups) != 2 || c.PrimaryChanged.Year() != 2020 {
					t.Errorf("claims %+v", c)
				}
			}
			wrong := identity.ErrWrong
			wantCheck(t, d, "capitals", strings.ToUpper(alice), right, nil)
			wantCheck(t, d, "wrong", alice, "not the password", wrong)
			wantCheck(t, d, "another's", alice, testlab.Primary(bob), wrong)
			wantCheck(t, d, "empty", alice, "", wrong)
			wantCheck(t, d, "NUL", alice, "\x00", wrong)
			wantCheck(t, d, "NUL behind", alice, right+"\x00", wrong)
			wantCheck(t, d, "nobody", "nobody@example.test", right, wrong)
			wantCheck(t, d, "nothing", "", right, wrong)
			wantCheck(t, d, "umlauts", "jörg@anywhere.test", "grüße", nil)
			wantCheck(t, d, "umlauts in other bytes", "jörg@anywhere.test", "gr\xfc\xdfe", wrong)
			wantCheck(t, d, "an odd name", `o'd(d)*\\x@example.test`, "odd-password", nil)
			wantCheck(t, d, "no password", "nopassword@example.test", "anything", wrong)
			wantCheck(t, d, "locked", "locked@example.test", "locked-password", wrong)
			if _, err := d.Check(t.Context(), "twin@example.test", []byte("twin-password")); !errors.Is(err, errMany) {
				t.Errorf("three entries: %v", err)
			}
			if len(d.idle) == 0 {
				t.Error("no connection is kept")
			}
			if seen, untried, err := d.Probe(t.Context()); err != nil || untried != "" || !strings.Contains(seen, "finds people") {
				t.Errorf("Probe = %q, %q, %v", seen, untried, err)
			}
		})
	}
}

// A sign-in that was under way when a reload closed the directory leaves no connection behind.
func TestNothingIsKeptOnceClosed(t *testing.T) {
	t.Parallel()
	d := directory(t, options(testlab.Slapd(t, 0)))
	wantCheck(t, d, "before", alice, testlab.Primary(alice), nil)
	if len(d.idle) == 0 {
		t.Error("no connection is kept")
	}
	d.Close()
	wantCheck(t, d, "afterwards", alice, testlab.Primary(alice), nil)
	if len(d.idle) != 0 {
		t.Error("a connection is kept that nobody will close")
	}
}

// A name can't be more than a value of the filter, whatever it is.
func TestNamesInFilters(t *testing.T) {
	t.Parallel()
	s := testlab.Slapd(t, 3)
	o := options(s)
	o.Filter = "(&(objectClass=person)(mail={address}))"
	d := directory(t, o)
	right := testlab.Primary(alice)
	names := []string{"*", "a*", "alice*", "*@example.test", "alice@example.test)(uid=*", "*)(objectClass=*", "x)(|(mail=*", "alice@example.test))(|(mail=*", `\2a`, `alice\40example.test`,
		"alice@example.test\x00", "\x00", "(", ")", "&", "!", "|", "=", "alice@example.test)", "{address}", "{local}@x", "x@{address}", "alice\xff@example.test", strings.Repeat("(", 5000),
		"alice@example.test*)(&", "alice)(uid=*@example.test", "nobody@example.test)(!(uid=x)"}
	for _, name := range names {
		for _, password := range []string{right, testlab.Primary(bob)} {
			c, err := d.Check(t.Context(), name, []byte(password))
			if !errors.Is(err, identity.ErrWrong) {
				t.Errorf("%.40q: %+v, %v", name, c, err)
			}
		}
	}
}

func FuzzFilter(f *testing.F) {
	f.Add("alice@example.test")
	f.Add("*)(uid=*")
	f.Fuzz(func(t *testing.T, name string) {
		got := fill("(mail={address})", name)
		if inner := got[len("(mail=") : len(got)-1]; strings.ContainsAny(inner, "()*\x00") {
			t.Errorf("%q became %q", name, got)
		}
	})
}

// Who was renamed signs in as before; who has got somebody's address is told apart.
func TestRenamedAndReused(t *testing.T) {
	t.Parallel()
	s := testlab.Slapd(t, 0)
	o := options(s)
	var tied string
	var broken error
	o.Tied = func(_ context.Context, address string) (string, error) {
		if address == alice {
			return tied, broken
		}
		return "", broken
	}
	d := directory(t, o)
	right := testlab.Primary(alice)
	tied = wantCheck(t, d, "before", alice, right, nil).Subject
	s.Rename(testlab.PersonDN("alice"), "uid=alice.jones")
	s.Set(testlab.PersonDN("alice.jones"), "mail", "alice.jones@example.test", "aj@example.test")
	if c := wantCheck(t, d, "renamed", alice, right, nil); c.Subject != tied || slices.Contains(c.Addresses, alice) {
		t.Errorf("claims %+v", c)
	}
	if c := wantCheck(t, d, "by the new name", "AJ@example.test", right, nil); c.Subject != tied || !slices.Equal(c.Addresses, []string{"AJ@example.test", "alice.jones@example.test"}) {
		t.Errorf("claims %+v", c)
	}
	broken = errors.New("the database is down")
	if _, err := d.Check(t.Context(), alice, []byte(right)); !errors.Is(err, broken) || errors.Is(err, identity.ErrWrong) {
		t.Errorf("while it is not known whom the account is bound to: %v", err)
	}
	broken = nil
	wantCheck(t, d, "renamed, wrong", alice, "wrong password", identity.ErrWrong)
	s.AddPerson("alice2", "second-password", alice)
	if c := wantCheck(t, d, "somebody new", alice, "second-password", nil); c.Subject == tied || c.Subject == "" {
		t.Errorf("claims %+v", c)
	}
	wantCheck(t, d, "the old one, whose address it is no more", alice, right, identity.ErrWrong)
}

func TestGroupsByTheirMembers(t *testing.T) {
	t.Parallel()
	s := testlab.Slapd(t, 0)
	o := options(s)
	o.Groups, o.GroupsAt = "", testlab.SlapdGroups
	if c := wantCheck(t, directory(t, o), "bob", bob, testlab.Primary(bob), nil); !slices.Equal(c.Groups, []string{"cn=staff," + testlab.SlapdGroups}) {
		t.Errorf("groups %q", c.Groups)
	}
	o.GroupsAt = "ou=nowhere," + testlab.SlapdBase
	if _, err := directory(t, o).Check(t.Context(), bob, []byte(testlab.Primary(bob))); err == nil || errors.Is(err, identity.ErrWrong) {
		t.Errorf("without the groups: %v", err)
	}
}

// What is wrong on the way is told with what mends it, and is never "wrong password".
func TestProbe(t *testing.T) {
	t.Parallel()
	s := testlab.Slapd(t, 3)
	s.Add("ou=empty,"+testlab.SlapdBase, map[string][]string{"objectClass": {"organizationalUnit"}, "ou": {"empty"}})
	s.Add("ou=part,"+testlab.SlapdBase, map[string][]string{"objectClass": {"organizationalUnit"}, "ou": {"part"}})
	s.Add("cn=elsewhere,ou=part,"+testlab.SlapdBase, map[string][]string{"objectClass": {"referral", "extensibleObject"}, "cn": {"elsewhere"},
		"ref": {"ldap://127.0.0.1:1/ou=people,dc=example,dc=net"}})
	for name, tt := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"certificate for another name":        {func(o *Options) { o.Route.TLS.ServerName = "other.example.test" }, "its certificate is for another name; set server_name"},
		"certificate of an unknown authority": {func(o *Options) { o.Route.TLS.RootCAs = x509.NewCertPool() }, "name the authority's certificate as ca_file"},
		"no TLS where it is expected":         {func(o *Options) { o.Route.Address = s.Addr }, `set tls = "starttls"`},
		"STARTTLS, another name":              {func(o *Options) { *o = withStartTLS(s); o.Route.TLS.ServerName = "other.example.test" }, "its certificate is for another name; set server_name"},
		"STARTTLS, unknown authority":         {func(o *Options) { *o = withStartTLS(s); o.Route.TLS.RootCAs = x509.NewCertPool() }, "name the authority's certificate as ca_file"},
		"STARTTLS where TLS speaks":           {func(o *Options) { *o = withStartTLS(s); o.Route.Address = s.TLS }, `set tls = "implicit"`},
		"nobody listens":                      {func(o *Options) { o.Route.Address = "127.0.0.1:1" }, "nobody listens there"},
		"wrong password":                      {func(o *Options) { o.Password = func() ([]byte, error) { return []byte("x"), nil } }, "look at bind_dn and password_file"},
		"no password file": {func(o *Options) {
			o.Password = func() ([]byte, error) { return nil, errors.New("password_file: gone") }
		}, "password_file: gone"},
		"no such base":        {func(o *Options) { o.Base = "ou=nowhere," + testlab.SlapdBase }, "there is no ou=nowhere"},
		"no such suffix":      {func(o *Options) { o.Base = "dc=example,dc=net" }, "there is no dc=example,dc=net"},
		"nobody there":        {func(o *Options) { o.Base = "ou=empty," + testlab.SlapdBase }, "nobody below ou=empty"},
		"anonymous":           {func(o *Options) { o.BindDN = "" }, "may not see it"},
		"no such subject":     {func(o *Options) { o.Subject = "employeeNumber" }, "set subject_attribute"},
		"GUIDs that are none": {func(o *Options) { o.Subject = "objectGUID" }, "set subject_attribute"},
		"no addresses":        {func(o *Options) { o.Address = "telephoneNumber" }, "set address_attribute"},
		"no such group_base":  {func(o *Options) { o.GroupsAt, o.GroupsBy = "ou=gruops,"+testlab.SlapdBase, "(member={dn})" }, "look at group_base"},
		"a part elsewhere":    {func(o *Options) { o.Base = "ou=part," + testlab.SlapdBase }, "it refers to another server"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			person := name == "no addresses" || name == "nobody there" // who is found and proves himself, or is not there
			o := options(s)
			r := *o.Route
			r.TLS = r.TLS.Clone()
			o.Route = &r
			tt.change(&o)
			d := directory(t, o)
			if _, _, err := d.Probe(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Probe = %v, want %q in it", err, tt.want)
			}
			if _, err := d.Check(t.Context(), alice, []byte(testlab.Primary(alice))); !person && (err == nil || errors.Is(err, identity.ErrWrong)) {
				t.Errorf("Check = %v", err)
			}
		})
	}
	o := options(s)
	o.Changed = "shadowLastChange"
	if _, untried, err := directory(t, o).Probe(t.Context()); err != nil || !strings.Contains(untried, "changed_attribute") {
		t.Errorf("without times: %q, %v", untried, err)
	}
}

// An account is not bound by a slip to somebody who is not there.
func TestKnows(t *testing.T) {
	t.Parallel()
	s := testlab.Slapd(t, 0)
	d := directory(t, options(s))
	c, err := d.Check(t.Context(), alice, []byte(testlab.Primary(alice)))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Knows(t.Context(), c.Subject); err != nil {
		t.Errorf("Knows(alice) = %v", err)
	}
	for _, subject := range []string{"", "nobody", strings.Replace(c.Subject, c.Subject[:1], "f", 1) + "0"} {
		if err := d.Knows(t.Context(), subject); err == nil || !strings.Contains(err.Error(), "the directory has nobody with the entryUUID") {
			t.Errorf("Knows(%q) = %v", subject, err)
		}
	}
	s.Stop()
	if err := d.Knows(t.Context(), c.Subject); err == nil || strings.Contains(err.Error(), "has nobody") {
		t.Errorf("without the directory: %v", err)
	}
}

// An active attacker answers StartTLS in plain text, and gets nothing.
func TestStartTLSStripped(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"refused":             "\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x02\x04\x00\x04\x00",
		"success, then plain": "\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00",
		"a bind's answer":     "\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00",
		"nothing":             "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got recorder
			o := Options{Route: &protocols.Route{Network: "tcp", Security: protocols.StartTLS, TLS: &tls.Config{ServerName: "ldap.example.test"},
				Address: answering(t, func(nc net.Conn) {
					io.CopyN(&got, nc, int64(len(startTLS)))
					io.WriteString(nc, answer)
					nc.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
					io.Copy(&got, nc)
				})}, BindDN: "cn=postern", Password: func() ([]byte, error) { return []byte("reader-secret"), nil }, Base: "dc=x", Filter: "(mail={address})", Subject: "entryUUID",
				Address: "mail", Log: slog.New(slog.DiscardHandler)}
			if _, err := directory(t, o).Check(t.Context(), alice, []byte("primary-secret")); err == nil || errors.Is(err, identity.ErrWrong) {
				t.Errorf("Check = %v", err)
			}
			if text := got.String(); strings.Contains(text, "secret") || strings.Contains(text, "alice") {
				t.Errorf("it was told %q", text)
			}
		})
	}
}

type recorder struct {
	mu sync.Mutex // guards b
	b  strings.Builder
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.Write(p)
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.String()
}

// answering is a server that does what talk does.
func answering(t *testing.T, talk func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	t.Cleanup(func() { ln.Close(); conns.Wait() })
	conns.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer nc.Close()
				talk(nc)
			})
		}
	})
	return ln.Addr().String()
}

// A server that answers rubbish, or nothing, or too much, at each step is no answer about a password.
func TestRubbish(t *testing.T) {
	t.Parallel()
	bound := "\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00"
	rubbish := map[string]string{
		"nothing":        "",
		"HTTP":           "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
		"zeros":          strings.Repeat("\x00", 100),
		"a long length":  "\x30\x84\x7f\xff\xff\xff" + strings.Repeat("x", 2<<20),
		"deep":           strings.Repeat("\x30\x80", 20000),
		"empty sequence": "\x30\x00",
		"no result":      "\x30\x05\x02\x01\x01\x61\x00",
		"wrong types":    "\x30\x0c\x02\x01\x01\x61\x07\x04\x01\x00\x04\x00\x04\x00",
		"half":           "\x30\x0c\x02\x01\x01\x61",
		"unknown result": "\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x70\x04\x00\x04\x00",
		"disconnection":  "\x30\x24\x02\x01\x00\x78\x1f\x0a\x01\x34\x04\x00\x04\x00\x8a\x161.3.6.1.4.1.1466.20036",
	}
	for name, text := range rubbish {
		for step := range 2 {
			t.Run(fmt.Sprintf("%s %d", name, step), func(t *testing.T) {
				t.Parallel()
				o := Options{Route: &protocols.Route{Network: "tcp", Address: answering(t, func(nc net.Conn) {
					buf := make([]byte, 4096)
					if nc.Read(buf); step > 0 { // the bind goes well
						io.WriteString(nc, bound)
						nc.Read(buf)
					}
					io.WriteString(nc, text)
				})}, BindDN: "cn=postern", Password: func() ([]byte, error) { return []byte("reader-secret"), nil }, Base: "dc=x", Filter: "(mail={address})",
					Subject: "entryUUID", Address: "mail", Log: slog.New(slog.DiscardHandler), Time: 5 * time.Second}
				_, err := directory(t, o).Check(t.Context(), alice, []byte("primary-secret"))
				if err == nil || errors.Is(err, identity.ErrWrong) || strings.Contains(err.Error(), "secret") {
					t.Errorf("Check = %v", err)
				}
			})
		}
	}
}

// A server that hangs is no answer either, nor does it hold anybody longer than his time; once it is back, all is well again.
func TestServerThatHangsAndReturns(t *testing.T) {
	t.Parallel()
	s := testlab.Slapd(t, 0)
	o := options(s)
	o.Time = 500 * time.Millisecond
	d := directory(t, o)
	right := testlab.Primary(alice)
	check := func(what string, want bool) {
		t.Helper()
		for range 20 { // the machine may be slow
			_, err := d.Check(t.Context(), alice, []byte(right))
			if errors.Is(err, identity.ErrWrong) {
				t.Fatalf("%s: %v", what, err)
			}
			if (err == nil) == want {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Errorf("%s: never so", what)
	}
	check("at first", true)
	s.Pause()
	check("while it hangs", false)
	s.Resume()
	check("when it goes on", true)
	s.Kill()
	check("when it is killed", false)
	s.Start()
	check("when it is back", true)
	for range cap(d.idle) { // connections that the server ends while they are kept
		if _, err := d.Check(t.Context(), alice, []byte(right)); err != nil {
			t.Error(err)
		}
	}
	s.Kill()
	s.Start()
	if _, err := directory(t, options(s)).Check(t.Context(), alice, []byte(right)); err != nil {
		t.Errorf("anew: %v", err)
	}
	check("over what was kept", true)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Check(gone, alice, []byte(right)); err == nil || errors.Is(err, identity.ErrWrong) {
		t.Errorf("who has gone: %v", err)
	}
}

func TestSubjects(t *testing.T) {
	t.Parallel()
	guid := &Directory{o: Options{Subject: "objectguid"}}
	raw := []byte{0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}
	const text = "00112233-4455-6677-8899-aabbccddeeff"
	if got := guid.subjectText(raw); got != text {
		t.Errorf("GUID %s", got)
	}
	if got, want := guid.subjectValue(text), `\33\22\11\00\55\44\77\66\88\99\aa\bb\cc\dd\ee\ff`; got != want {
		t.Errorf("value %s, want %s", got, want)
	}
	if got := guid.subjectText(raw[:15]); got != "" {
		t.Errorf("a short one: %q", got)
	}
	uuid := &Directory{o: Options{Subject: "entryUUID"}}
	for raw, want := range map[string]string{"ABC": "abc", "a\nb": "", "\xff": "", strings.Repeat("x", 201): ""} {
		if got := uuid.subjectText([]byte(raw)); got != want {
			t.Errorf("%.20q became %.20q", raw, got)
		}
	}
	if got := uuid.subjectFilter("a*", "b)"); got != `(|(entryUUID=a\2a)(entryUUID=b\29))` {
		t.Errorf("filter %s", got)
	}
}

func TestTimes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"20261126075608Z":        "2026-11-26T07:56:08Z",
		"20261126075608.123Z":    "2026-11-26T07:56:08Z",
		"20261126085608+0100":    "2026-11-26T07:56:08Z",
		"202611260756Z":          "2026-11-26T07:56:00Z",
		"133500000000000000":     "2024-01-17T21:20:00Z",
		"0":                      "", // must be changed
		"-1":                     "",
		"":                       "",
		"soon":                   "",
		"99991231235959Z":        "", // a clock that was wrong
		"9223372036854775807":    "", // never, in Active Directory's words
		"20261126075608":         "",
		"19700101000000Z":        "",
		strings.Repeat("9", 500): "",
	} {
		got := ""
		if at := parseTime(text); !at.IsZero() {
			got = at.Format(time.RFC3339)
		}
		if got != want {
			t.Errorf("%.30q is %q, want %q", text, got, want)
		}
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{"a@x.test": "a@x.test", "SMTP:a@x.test": "a@x.test!", "smtp:b@x.test": "b@x.test", "sip:a@x.test": "", "X500:/o=x": "", "nothing": "", "a\n@x": ""} {
		got, main := address(value)
		if main {
			got += "!"
		}
		if got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}

// An entry that wrong passwords have locked is one that lets nobody in; a directory that is unwilling is none.
func TestLockedElsewhere(t *testing.T) {
	t.Parallel()
	for code, wrong := range map[string]bool{"\x13": true, "\x35": false, "\x33": false} {
		o := Options{Route: &protocols.Route{Network: "tcp", Address: answering(t, func(nc net.Conn) {
			buf := make([]byte, 4096)
			nc.Read(buf)
			io.WriteString(nc, "\x30\x0c\x02\x01\x01\x61\x07\x0a\x01"+code+"\x04\x00\x04\x00")
			nc.Read(buf)
		})}, Base: "dc=x", Filter: "(mail={address})", Subject: "nsUniqueId", Log: slog.New(slog.DiscardHandler)}
		if err := directory(t, o).prove(t.Context(), "cn=x", []byte("p")); err == nil || errors.Is(err, identity.ErrWrong) != wrong {
			t.Errorf("%q: %v", code, err)
		}
	}
}

// Active Directory says more than that the password is wrong; the person hears no more than that.
func TestActiveDirectorysReasons(t *testing.T) {
	t.Parallel()
	answer := func(id byte, text string) string {
		body := "\x0a\x01\x31\x04\x00\x04" + string(rune(len(text))) + text
		return "\x30" + string(rune(len(body)+5)) + "\x02\x01" + string(rune(id)) + "\x61" + string(rune(len(body))) + body
	}
	for data, why := range map[string]string{"52e": "", "532": "password expired", "773": "must change the password first", "533": "disabled", "775": "locked", "525": ""} {
		o := Options{Route: &protocols.Route{Network: "tcp", Address: answering(t, func(nc net.Conn) {
			buf := make([]byte, 4096)
			nc.Read(buf)
			io.WriteString(nc, answer(1, "80090308: LdapErr: x, AcceptSecurityContext error, data "+data+", v2580"))
			nc.Read(buf)
		})}, Base: "dc=x", Filter: "(mail={address})", Subject: "objectGUID", Log: slog.New(slog.DiscardHandler)}
		d := directory(t, o)
		l, err := d.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var r *refused
		if err := l.bind(t.Context(), "cn=x", []byte("p")); !errors.As(err, &r) || r.code != 49 || r.why != why {
			t.Errorf("%s: %v", data, err)
		}
		l.close()
		if err := d.prove(t.Context(), "cn=x", []byte("p")); !errors.Is(err, identity.ErrWrong) {
			t.Errorf("%s: %v", data, err)
		}
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	const many = 1234
	s := testlab.Slapd(t, many, testlab.SlapdLines{Global: "sizelimit size.soft=500 size.hard=500 size.prtotal=unlimited"})
	d := directory(t, options(s))
	for filter, want := range map[string]int{"": many + 3, "(uid=u*)": many, "(uid=alice)": 1, "(uid=nobody)": 0} {
		subjects := make(map[string]bool)
		if err := d.List(t.Context(), filter, func(l Listed) error {
			subjects[l.Subject] = len(l.Addresses) == 1 && strings.HasPrefix(l.Entry, "uid=")
			return nil
		}); err != nil || len(subjects) != want {
			t.Errorf("%s: %d people, %v", filter, len(subjects), err)
		}
	}
	s.Set(testlab.PersonDN("bob"), "pwdAccountLockedTime", "000001010000Z")
	if err := d.List(t.Context(), "(uid=bob)", func(l Listed) error { return fmt.Errorf("listed %s", l.Entry) }); err != nil {
		t.Errorf("who is disabled: %v", err)
	}
	for _, filter := range []string{"uid=alice", "(uid=alice", "(uid=alice)(x=y)"} {
		if err := d.List(t.Context(), filter, func(Listed) error { return nil }); err == nil {
			t.Errorf("%s was taken", filter)
		}
	}
	s.Kill()
	if err := d.List(t.Context(), "", func(Listed) error { return nil }); err == nil || !strings.Contains(err.Error(), "nobody listens") {
		t.Errorf("without a server: %v", err)
	}
}
