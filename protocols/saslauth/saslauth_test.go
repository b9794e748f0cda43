package saslauth

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/emersion/go-sasl"
)

func TestPlain(t *testing.T) {
	for response, want := range map[string]*Credentials{
		"\x00alice@example.test\x00secret":                  {"", "alice@example.test", []byte("secret")},
		"alice@example.test\x00alice@example.test\x00s e c": {"alice@example.test", "alice@example.test", []byte("s e c")},
		"\x00\xc3\xa4\x00\xff":                              {"", "ä", []byte("\xff")},
		"":                                                  nil,
		"\x00":                                              nil,
		"\x00\x00":                                          nil,
		"\x00alice\x00":                                     nil,
		"\x00\x00secret":                                    nil,
		"alice\x00secret":                                   nil,
		"\x00alice\x00sec\x00ret":                           nil,
		"\x00alice\x00secret\x00":                           nil,
		"\x00\xff\x00secret":                                nil,
		"\xff\x00alice\x00secret":                           nil,
		"\x00" + strings.Repeat("a", 256) + "\x00secret":   nil,
		strings.Repeat("a", 256) + "\x00alice\x00secret":   nil,
		"\x00alice\x00" + strings.Repeat("s", maxSecret+1): nil,
	} {
		typed := []byte(response)
		_, got, err := NewExchange(Plain).Next(typed)
		if want == nil {
			if !errors.Is(err, ErrMalformed) || got != nil {
				t.Errorf("Next(%.40q) = %+v, %v; want %v", response, got, err, ErrMalformed)
			}
			continue
		}
		clear(typed)
		if err != nil || got.Authzid != want.Authzid || got.Authcid != want.Authcid || !bytes.Equal(got.Secret, want.Secret) {
			t.Errorf("Next(%q) = %+v, %v; want %+v", response, got, err, want)
		}
	}
}

func TestPlainAsksForTheResponse(t *testing.T) {
	e := NewExchange(Plain)
	if challenge, c, err := e.Next(nil); len(challenge) != 0 || c != nil || err != nil {
		t.Errorf("Next(nil) = %q, %v, %v; want an empty challenge", challenge, c, err)
	}
	if _, c, err := e.Next([]byte("\x00alice\x00secret")); err != nil || c.Authcid != "alice" {
		t.Errorf("Next = %v, %v", c, err)
	}
}

func TestLogin(t *testing.T) {
	e := NewExchange(Login)
	name, secret := []byte("alice"), []byte("secret")
	if challenge, _, err := e.Next(nil); string(challenge) != "Username:" || err != nil {
		t.Fatalf("first challenge = %q, %v", challenge, err)
	}
	challenge, _, err := e.Next(name)
	if string(challenge) != "Password:" || err != nil {
		t.Fatalf("second challenge = %q, %v", challenge, err)
	}
	clear(name)
	_, c, err := e.Next(secret)
	if err != nil || c.Authcid != "alice" || string(c.Secret) != "secret" || c.Authzid != "" {
		t.Fatalf("credentials = %+v, %v", c, err)
	}
	kept := c.Secret
	c.Clear()
	if !bytes.Equal(kept, make([]byte, 6)) {
		t.Error("Clear left the secret")
	}
	for name, responses := range map[string][]string{
		"empty name": {""}, "NUL in the name": {"a\x00b"}, "long name": {strings.Repeat("a", 256)}, "name not in UTF-8": {"\xff", "secret"},
		"empty secret": {"alice", ""}, "NUL in the secret": {"alice", "se\x00cret"}, "long secret": {"alice", strings.Repeat("s", maxSecret+1)},
	} {
		e := NewExchange(Login)
		for _, r := range responses[:len(responses)-1] {
			e.Next([]byte(r))
		}
		_, c, err := e.Next([]byte(responses[len(responses)-1]))
		if name == "name not in UTF-8" {
			if err == nil {
				t.Errorf("%s: accepted", name)
			}
			continue
		}
		if !errors.Is(err, ErrMalformed) || c != nil {
			t.Errorf("%s: %v, %v", name, c, err)
		}
	}
}

func TestOtherMechanisms(t *testing.T) {
	for _, name := range []string{"", "plain", "OAUTHBEARER", "SCRAM-SHA-256"} {
		if NewExchange(name) != nil {
			t.Errorf("NewExchange(%q) is offered", name)
		}
	}
}

func TestDecode(t *testing.T) {
	for line, want := range map[string]string{"=": "", "": "", "AGEAYg==": "\x00a\x00b", "YQ==": "a"} {
		if got, err := Decode([]byte(line)); string(got) != want || got == nil || err != nil {
			t.Errorf("Decode(%q) = %q, %v", line, got, err)
		}
	}
	for _, line := range []string{"YQ", "YQ=", "YR==", "Y Q==", "YQ\r==", "YQ==\n", "*", "==", "YQ==YQ=="} {
		if got, err := Decode([]byte(line)); !errors.Is(err, ErrMalformed) {
			t.Errorf("Decode(%q) = %q, %v", line, got, err)
		}
	}
}

// Our client and go-sasl's server understand each other, and the other way round.
func TestAppendPlain(t *testing.T) {
	got, err := AppendPlain([]byte("L AUTHENTICATE PLAIN "), "alice@example.test", "gateway", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	message, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(string(got), "L AUTHENTICATE PLAIN "))
	if err != nil {
		t.Fatal(err)
	}
	server := sasl.NewPlainServer(func(authzid, authcid, secret string) error {
		if authzid != "alice@example.test" || authcid != "gateway" || secret != "secret" {
			t.Errorf("go-sasl reads %q, %q, %q", authzid, authcid, secret)
		}
		return nil
	})
	if _, done, err := server.Next(message); !done || err != nil {
		t.Errorf("go-sasl: %v, %v", done, err)
	}
	_, theirs, _ := sasl.NewPlainClient("bob", "alice", "pass").Start()
	if _, c, err := NewExchange(Plain).Next(theirs); err != nil || c.Authzid != "bob" || c.Authcid != "alice" || string(c.Secret) != "pass" {
		t.Errorf("of go-sasl's message we read %+v, %v", c, err)
	}
	for _, bad := range [][3]string{{"a\x00b", "gateway", "s"}, {"", "g\x00w", "s"}, {"", "gateway", "s\x00"}, {"alice", "", "s"}, {"alice", "gateway", ""}} {
		if got, err := AppendPlain(nil, bad[0], bad[1], []byte(bad[2])); err == nil {
			t.Errorf("AppendPlain(%q) = %q", bad, got)
		}
	}
}

// FuzzDecode: what is read as PLAIN, written again, is what was read, and go-sasl reads the same.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("AGFsaWNlQGV4YW1wbGUudGVzdABhYmNkZS1mZ2hqaw=="))
	f.Add([]byte("YQBiAGM="))
	f.Add([]byte("="))
	f.Add([]byte("AAAA"))
	f.Fuzz(func(t *testing.T, line []byte) {
		message, err := Decode(bytes.Clone(line))
		if err != nil {
			return
		}
		if len(message) > 0 && base64.StdEncoding.EncodeToString(message) != string(line) {
			t.Fatalf("Decode(%q) = %q, which is not the only way to write it", line, message)
		}
		_, c, err := NewExchange(Plain).Next(message)
		if err != nil {
			return
		}
		again, err := AppendPlain(nil, c.Authzid, c.Authcid, c.Secret)
		if err != nil || !bytes.Equal(again, line) {
			t.Fatalf("%q was read as %+v and written as %q, %v", line, c, again, err)
		}
		theirs := sasl.NewPlainServer(func(authzid, authcid, secret string) error {
			if authzid != c.Authzid || authcid != c.Authcid || secret != string(c.Secret) {
				t.Errorf("go-sasl reads %q, %q, %q from %q", authzid, authcid, secret, message)
			}
			return nil
		})
		if _, _, err := theirs.Next(message); err != nil {
			t.Errorf("go-sasl: %v", err)
		}
		challenge, c, err := NewExchange(Login).Next(message)
		if err == nil && (c != nil || challenge == nil) {
			t.Fatalf("LOGIN was over after one response")
		}
	})
}
