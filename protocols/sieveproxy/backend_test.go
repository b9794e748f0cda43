package sieveproxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"postern/internal/testlab"
	"postern/protocols"
	"postern/protocols/doortest"
	"postern/protocols/sieveproxy"
)

// backend is one that says what it is told: first its greeting, then to each command what stands for its first word.
type backend struct {
	address string
	mu      sync.Mutex // guards heard
	heard   []string
}

const greeting = "\"IMPLEMENTATION\" \"fake\"\n\"SIEVE\" \"fileinto\"\n\"SASL\" \"PLAIN\"\n\"VERSION\" \"1.0\"\nOK\n"

func newBackend(t *testing.T, greets string, says map[string]string) *backend {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	b := &backend{address: ln.Addr().String()}
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go b.serve(nc, greets, says)
		}
	}()
	return b
}

func (b *backend) serve(nc net.Conn, greets string, says map[string]string) {
	defer nc.Close()
	io.WriteString(nc, strings.ReplaceAll(greets, "\n", "\r\n"))
	for r := bufio.NewReader(nc); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		var n int
		if at := strings.LastIndex(line, "{"); at >= 0 {
			fmt.Sscanf(line[at:], "{%d+}", &n)
			io.CopyN(io.Discard, r, int64(n)+2)
		}
		b.mu.Lock()
		b.heard = append(b.heard, strings.TrimSpace(line))
		b.mu.Unlock()
		verb := strings.Fields(line + " x")[0]
		answer, ok := says[verb]
		switch {
		case answer == "cut":
			return
		case !ok && verb == "CAPABILITY":
			answer = greeting
		case !ok:
			answer = "OK\n"
		}
		io.WriteString(nc, strings.ReplaceAll(answer, "\n", "\r\n"))
	}
}

// What a backend may say instead of what it should. A client is never told that its password is wrong.
func TestBackends(t *testing.T) {
	t.Parallel()
	type says = map[string]string
	for name, tt := range map[string]struct {
		greets     string
		says       says
		want       string // of the error
		credential bool
	}{
		"fine":                  {greeting, nil, "", false},
		"in literals":           {"{4}\nSASL {5}\nPLAIN\nok {2}\nhi\n", says{"AUTHENTICATE": "OK (SASL \"cnNwYXV0aA==\") {2}\nhi\n"}, "", false},
		"wrong credential":      {greeting, says{"AUTHENTICATE": "NO \"Authentication failed.\"\n"}, `it answered "NO Authentication failed."`, true},
		"it is busy":            {greeting, says{"AUTHENTICATE": "NO (TRYLATER) {4}\nbusy\n"}, `it answered "NO (TRYLATER) busy"`, false},
		"it is elsewhere":       {greeting, says{"AUTHENTICATE": "NO (referral \"sieve://x.test\") \"go\"\n"}, `it answered "NO (REFERRAL) go"`, false},
		"it wants TLS":          {greeting, says{"AUTHENTICATE": "NO (ENCRYPT-NEEDED)\n"}, `set tls = "starttls"`, false},
		"it says goodbye":       {greeting, says{"AUTHENTICATE": "BYE \"Internal error\"\n"}, `it has troubles of its own`, false},
		"BYE at first":          {"BYE (TRYLATER) \"full\"\n", nil, `it answered "BYE (TRYLATER) full"`, false},
		"cut":                   {greeting, says{"AUTHENTICATE": "cut"}, "EOF", false},
		"cut at CAPABILITY":     {greeting, says{"CAPABILITY": "cut"}, "EOF", false},
		"no PLAIN":              {strings.Replace(greeting, "PLAIN", "GSSAPI", 1), nil, "it does not offer SASL PLAIN", false},
		"nothing without TLS":   {strings.Replace(greeting, "PLAIN", "", 1), nil, "it takes no logins without TLS", false},
		"of another age":        {greeting, says{"CAPABILITY": "\"SIEVE\" \"fileinto\"\nOK\n"}, "older than RFC 5804", false},
		"IMAP":                  {"* OK ready\n", nil, "it does not speak ManageSieve", false},
		"endless":               {strings.Repeat("\"x\"\n", 300), nil, "it says too much", false},
		"a long line":           {"\"" + strings.Repeat("x", 9000), nil, "line too long", false},
		"a long literal":        {"{5000}\n", nil, "bad literal", false},
		"scripts can't be read": {greeting, says{"LISTSCRIPTS": "NO \"Internal error\"\n"}, "its scripts can't be listed", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBackend(t, tt.greets, tt.says)
			err := sieveproxy.Probe(t.Context(), routeTo(b.address, testlab.Alice))
			if fmt.Sprint(err) != "<nil>" && tt.want == "" || tt.want != "" && !strings.Contains(fmt.Sprint(err), tt.want) || errors.Is(err, protocols.ErrCredential) != tt.credential {
				t.Errorf("Probe: %v, want %s", err, tt.want)
			}
			d := serve(t, to(b.address))
			k := d.Dial(t)
			answer(k)
			k.Send("AUTHENTICATE \"PLAIN\" \"%s\"\r\n", plain(testlab.Alice, doortest.AppPassword))
			want := `OK "Logged in."`
			if tt.want != "" && tt.says["LISTSCRIPTS"] == "" {
				want = `NO (TRYLATER) "Account is temporarily unavailable."`
			}
			if got := answer(k); got != want {
				t.Errorf("the client is told %q, want %q", got, want)
			}
		})
	}
}

// What the backends can do is learned by asking and by logins; what stands for commands that don't pass is not told.
func TestCapabilitiesAreLearned(t *testing.T) {
	t.Parallel()
	const inside = "\"IMPLEMENTATION\" \"fake\"\n\"SIEVE\" \"fileinto x-odd\"\n\"NOTIFY\" \"mailto\"\n\"MAXREDIRECTS\" \"4\"\n\"OWNER\" \"alice\"\n\"UNAUTHENTICATE\"\n\"LANGUAGE\" \"en\"\n\"XCLIENT\"\n\"X-MAGIC\" \"1\"\n\"VERSION\" \"1.0\"\nOK\n"
	b := newBackend(t, strings.Replace(greeting, "\"SASL", "\"XCLIENT\"\n\"SASL", 1), map[string]string{"CAPABILITY": inside})
	want := protocols.Capabilities{{Name: "SIEVE", Value: "fileinto x-odd"}, {Name: "NOTIFY", Value: "mailto"}, {Name: "MAXREDIRECTS", Value: "4"}}
	list, err := sieveproxy.Ask(t.Context(), routeTo(b.address, testlab.Alice))
	if err != nil || fmt.Sprint(list) != fmt.Sprint(want) {
		t.Errorf("Ask = %v, %v; want %v", list, err, want)
	}
	offers := doortest.Offers(t)
	d := doortest.Serve(t, sieveproxy.Door{Offers: offers}, to(b.address))
	k := d.Dial(t)
	if got := answer(k); got != listPlain+`OK "Postern ready."` {
		t.Errorf("greeting %q", got)
	}
	k.Send("AUTHENTICATE \"PLAIN\" \"%s\"\r\n", plain(testlab.Alice, doortest.AppPassword))
	answer(k)
	if got := offers.Common(context.Background()); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("a login teaches %v, want %v", got, want)
	}
	if got := answer(d.Dial(t)); got != strings.Replace(listPlain, "\"SIEVE\" \"\"", "\"SIEVE\" \"fileinto x-odd\"\n\"NOTIFY\" \"mailto\"\n\"MAXREDIRECTS\" \"4\"", 1)+`OK "Postern ready."` {
		t.Errorf("the greeting after it: %q", got)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	heard := strings.Join(b.heard, "\n")
	if n := strings.Count(heard, "XCLIENT"); n != 1 || !strings.Contains(heard, "XCLIENT ADDR=127.0.0.1 PORT=") || !strings.Contains(heard, " TTL=4\n") {
		t.Errorf("the backend heard\n%s", heard)
	}
}
