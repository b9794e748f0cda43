package notice

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net/mail"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/authstore"
	"postern/gateway/texts"
)

var update = flag.Bool("update", false, "write the goldens")

func sender(t testing.TB, o Options) *Sender {
	t.Helper()
	if o.From == "" {
		o.From = "Postern <postern@example.test>"
	}
	if o.Address == "" {
		o.Address = "127.0.0.1:25"
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// parsed is a mail as its reader sees it.
type parsed struct {
	mail.Header
	subject, body string
}

func parse(t testing.TB, s *Sender, n *authstore.Notice) parsed {
	t.Helper()
	m, err := s.message(n)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := m.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return parseText(t, b.Bytes())
}

func parseText(t testing.TB, text []byte) parsed {
	t.Helper()
	for line := range bytes.SplitSeq(text, []byte("\r\n")) {
		if len(line) > 78 || bytes.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r > '~' }) {
			t.Errorf("a line of %d bytes: %q", len(line), line)
		}
	}
	m, err := mail.ReadMessage(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	if err != nil {
		t.Errorf("subject: %v", err)
	}
	if got := m.Header.Get("Content-Type"); got != "text/plain; charset=UTF-8" {
		t.Errorf("Content-Type: %s", got)
	}
	if got := m.Header.Get("Content-Transfer-Encoding"); got != "quoted-printable" {
		t.Errorf("Content-Transfer-Encoding: %s", got)
	}
	body, err := io.ReadAll(quotedprintable.NewReader(m.Body))
	if err != nil {
		t.Errorf("body: %v", err)
	}
	return parsed{m.Header, subject, strings.ReplaceAll(string(body), "\r\n", "\n")}
}

// at is when everything happens in these tests.
var at = time.Date(2026, 7, 2, 13, 4, 5, 0, time.UTC)

func noticeOf(kind, detail string) *authstore.Notice {
	n := &authstore.Notice{Address: "alice@example.test", Zone: "Europe/Berlin",
		Event: authstore.Event{ID: 17, At: at, Account: 1, Kind: kind, Detail: detail,
			Actor: authstore.Actor{Name: "portal", Client: netip.MustParseAddr("192.0.2.7"), Agent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"}}}
	if strings.HasPrefix(kind, "password.") && kind != "password.revoked_all" {
		n.Password, n.Label, n.Scopes = 3, "Phone", authstore.ScopeMail|authstore.ScopeSubmit|authstore.ScopeCalendarRead
	}
	return n
}

// One mail for each kind and language, in files that are read like code.
func TestMails(t *testing.T) {
	use := authstore.NewUse{Protocol: "imap", App: "Thunderbird 140.1", Network: netip.MustParsePrefix("198.51.100.0/24"), Operator: "AS64496 Example Net"}
	app, network, both := use, use, use
	app.NewApp, network.NewOperator, both.NewApp, both.NewOperator = true, true, true, true
	network.Operator, network.App = "198.51.0.0/16", ""
	mails := map[string]*authstore.Notice{
		"password.new_use app": noticeOf(authstore.KindNewUse, app.String()), "password.new_use network": noticeOf(authstore.KindNewUse, network.String()),
		"password.new_use both": noticeOf(authstore.KindNewUse, both.String()),
		"password.revoked":      noticeOf("password.revoked", "in the portal"),
		"password.revoked_all":  noticeOf("password.revoked_all", "in the portal"),
	}
	for _, kind := range []string{"password.created", "factor.added", "factor.removed", "recovery.renewed", "recovery.used", "primary.set", "primary.changed",
		"invitation.accepted", "portal.first_sign_in", authstore.KindConnectionMade, authstore.KindConnectionFailed, authstore.KindConnectionRemoved, "portal.first_vouched", "invitation.made", "factors.reset"} {
		mails[kind] = noticeOf(kind, map[string]string{"factor.added": "Key on the ring", "factor.removed": "Old phone", "recovery.used": "9", "primary.changed": "4"}[kind])
	}
	for name, n := range mails {
		if !authstore.Noticed(n.Kind) {
			t.Errorf("nobody is told of %s", n.Kind)
		}
		if strings.HasPrefix(name, authstore.KindNewUse) {
			n.Actor = authstore.Actor{Name: "gateway"}
		}
	}
	mails[authstore.KindConnectionFailed].Actor = authstore.Actor{Name: "gateway"}
	single := noticeOf("password.created", "")
	single.Scopes, single.Collections = authstore.Presets[0].Scopes, []authstore.Collection{{Kind: authstore.CalendarCollection, Name: "4711"}, {Kind: authstore.ContactsCollection, Name: authstore.EveryCollection}}
	single.Titles = authstore.Titles{single.Collections[0]: "Work"}
	mails["password.created single"] = single
	byAdministrator := noticeOf("password.revoked", "phone lost")
	byAdministrator.Actor = authstore.Actor{Name: "cli:root"}
	mails["password.revoked by administrator"] = byAdministrator
	policy := authstore.Actor{Name: "policy"}
	mails["password.idle"] = noticeOf(authstore.KindIdle, `{"ends":"2026-11-30T08:00:00Z"}`)
	mails["password.yearly"] = noticeOf(authstore.KindYearly, `[{"id":7,"label":"Thunderbird","scopes":7,"last":"2026-11-01T08:00:00Z"},{"id":9,"label":"See https://evil.example","scopes":1}]`)
	mails["password.yearly"].Password = 0
	mails["password.revoked by policy"] = noticeOf("password.revoked", "not used for 90 days")
	for _, name := range []string{"password.idle", "password.yearly", "password.revoked by policy"} {
		mails[name].Actor = policy
	}
	forScanner := noticeOf("password.created", "Scanner")
	forScanner.Actor.Name = "admin:carol@example.test"
	mails["password.created by administrator"] = forScanner
	mails["factors.reset"].Actor.Name, mails["invitation.made"].Actor.Name = "admin:carol@example.test", "cli:root"
	s := sender(t, Options{Epoch: "EPOCH", Site: "https://passwords.example.test"})
	for _, language := range texts.Languages() {
		for name, n := range mails {
			n.Language = language.String()
			p := parse(t, s, n)
			got := fmt.Sprintf("From: %s\nTo: %s\nDate: %s\nMessage-ID: %s\nAuto-Submitted: %s\nContent-Language: %s\nSubject: %s\n\n%s", p.Get("From"), p.Get("To"),
				p.Get("Date"), p.Get("Message-ID"), p.Get("Auto-Submitted"), p.Get("Content-Language"), p.subject, p.body)
			if strings.Contains(got, "%!") || strings.Contains(got, "notice.") || strings.Contains(got, "scope.") {
				t.Errorf("%s in %s lacks a text:\n%s", name, language, got)
			}
			golden(t, strings.ReplaceAll(name, " ", "_")+"."+language.String()+".txt", got)
		}
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
	}
}

// Every kind that people are told of has its texts, also one that comes later.
func TestAllKindsHaveTexts(t *testing.T) {
	for _, language := range texts.Languages() {
		p := texts.In(language.String())
		for _, kind := range authstore.NoticedKinds() {
			parts := []string{".subject", ".not_mine"}
			if kind == authstore.KindIdle || kind == authstore.KindYearly { // nobody did it
				parts = []string{".subject", ".what", ".mine"}
			}
			for _, part := range parts {
				if !p.Has(textKey(kind) + part) {
					t.Errorf("%s has no %s%s", language, textKey(kind), part)
				}
			}
		}
		for _, scope := range []authstore.Scopes{1<<15 - 1} {
			if got := opens(p, &authstore.Notice{Scopes: scope}); strings.Contains(got, "scope.") {
				t.Errorf("%s lacks a scope's name: %s", language, got)
			}
		}
	}
}

// Labels, browsers' and apps' names are written by others.
func TestNothingCanBeInjected(t *testing.T) {
	for _, hostile := range hostiles {
		checkHostile(t, hostile)
	}
}

var hostiles = []string{
	"x\r\nBcc: eve@example.test", "x\nBcc: eve@example.test", "x\rBcc: eve@example.test", "x\r\n\r\n<script>alert(1)</script>", "\u2028Bcc: eve@example.test", "x\x00y",
	"=?utf-8?q?=0D=0ABcc:_eve@example.test?=", "\u202emoc.live", "call t.co/x.y", "http://evil.example/ Www.evil.example", strings.Repeat("ä", 300), strings.Repeat("x ", 500),
	strings.Repeat("x", 2000), "\xff\xfe", ".\r\n.\r\nMAIL FROM:<eve@example.test>", "", " ", "%[1]s %d %!", "\x1b[31m", "Ünïcödé 📱",
}

func checkHostile(t *testing.T, hostile string) {
	s := sender(t, Options{Epoch: "EPOCH", Site: "https://passwords.example.test"})
	for _, kind := range []string{"password.created", "password.revoked", authstore.KindNewUse, "factor.added"} {
		n := noticeOf(kind, hostile)
		n.Label, n.Actor.Agent = hostile, hostile
		work := authstore.Collection{Kind: authstore.CalendarCollection, Name: hostile}
		n.Scopes, n.Collections, n.Titles = authstore.ScopeCalendar, []authstore.Collection{work}, authstore.Titles{work: hostile}
		if kind == authstore.KindNewUse {
			n.Detail = authstore.NewUse{App: hostile, Protocol: hostile, Operator: hostile, Network: netip.MustParsePrefix("192.0.2.0/24")}.String()
		}
		p := parse(t, s, n)
		var keys []string
		for key, values := range p.Header {
			keys = append(keys, key)
			if len(values) != 1 {
				t.Errorf("%q makes %s %q", hostile, key, values)
			}
		}
		slices.Sort(keys)
		if want := "[Auto-Submitted Content-Language Content-Transfer-Encoding Content-Type Date From Message-Id Mime-Version Subject To]"; fmt.Sprint(keys) != want {
			t.Errorf("%q makes the headers %v, want %s", hostile, keys, want)
		}
		if p.Get("To") != "<alice@example.test>" {
			t.Errorf("%q sends to %s", hostile, p.Get("To"))
		}
		plain := parse(t, s, noticeOf(kind, n.Detail))
		if kind != authstore.KindNewUse && strings.Count(p.body, "\n") > strings.Count(plain.body, "\n")+1 {
			t.Errorf("%q makes new lines in\n%s", hostile, p.body)
		}
		for _, text := range []string{p.subject, strings.ReplaceAll(p.body, "https://passwords.example.test", "")} {
			if strings.Contains(text, "://") || strings.Contains(strings.ToLower(text), "evil.example") || strings.Contains(text, "t.co") || strings.Contains(text, "moc.live") || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\n' || r == '\u202e' || r == '\u2028' }) {
				t.Errorf("%q makes %q", hostile, text)
			}
		}
	}
}

func FuzzNothingCanBeInjected(f *testing.F) {
	for _, hostile := range hostiles {
		f.Add(hostile)
	}
	f.Fuzz(checkHostile)
}

func TestZones(t *testing.T) {
	for zone, want := range map[string]string{
		"":                 "2 Jul 2026, 13:04 UTC",
		"Europe/Berlin":    "2 Jul 2026, 15:04 CEST (Europe/Berlin)",
		"Asia/Kathmandu":   "2 Jul 2026, 18:49 +0545 (Asia/Kathmandu)",
		"Nowhere/At/All":   "2 Jul 2026, 13:04 UTC",
		"Local":            "2 Jul 2026, 13:04 UTC",
		"../../etc/passwd": "2 Jul 2026, 13:04 UTC",
	} {
		n := noticeOf("recovery.used", "")
		n.Zone = zone
		if p := parse(t, sender(t, Options{}), n); !strings.Contains(p.body, "When: "+want+"\n") {
			t.Errorf("in %q: %s; want %s", zone, p.body, want)
		}
	}
}

func TestNewChecks(t *testing.T) {
	for _, o := range []Options{{From: "nobody", Address: "h:25"}, {From: "a@example.test", Address: "h"}, {From: "a@example.test\r\nBcc: b@example.test", Address: "h:25"}} {
		if _, err := New(o); err == nil {
			t.Errorf("New(%+v) takes that", o)
		}
	}
}
