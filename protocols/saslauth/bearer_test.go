package saslauth

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/emersion/go-sasl"
)

func decoded(t testing.TB, encoded []byte) string {
	t.Helper()
	message, err := base64.StdEncoding.DecodeString(string(encoded))
	if err != nil {
		t.Fatal(err)
	}
	return string(message)
}

func TestAppendBearer(t *testing.T) {
	const dst = "AUTH "
	for name, tt := range map[string]struct{ authcid, host, port, oauthbearer, xoauth2 string }{
		"all": {"alice@example.test", "imap.example.test", "993", "n,a=alice@example.test,\x01host=imap.example.test\x01port=993\x01auth=Bearer to.k-en=\x01\x01",
			"user=alice@example.test\x01auth=Bearer to.k-en=\x01\x01"},
		"a socket": {"alice", "", "", "n,a=alice,\x01auth=Bearer to.k-en=\x01\x01", "user=alice\x01auth=Bearer to.k-en=\x01\x01"},
		"a name that would end the header": {"a=b,c@example.test", "h", "", "n,a=a=3Db=2Cc@example.test,\x01host=h\x01auth=Bearer to.k-en=\x01\x01",
			"user=a=b,c@example.test\x01auth=Bearer to.k-en=\x01\x01"},
		"a shared mailbox": {`alice@example.test\info`, "h", "", `n,a=alice@example.test\info,` + "\x01host=h\x01auth=Bearer to.k-en=\x01\x01",
			`user=alice@example.test\info` + "\x01auth=Bearer to.k-en=\x01\x01"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := AppendOAuthBearer([]byte(dst), tt.authcid, tt.host, tt.port, []byte("to.k-en="))
			if err != nil || !bytes.HasPrefix(got, []byte(dst)) || decoded(t, got[len(dst):]) != tt.oauthbearer {
				t.Errorf("OAUTHBEARER: %q, %v; want %q", got, err, tt.oauthbearer)
			}
			got, err = AppendXOAuth2([]byte(dst), tt.authcid, []byte("to.k-en="))
			if err != nil || !bytes.HasPrefix(got, []byte(dst)) || decoded(t, got[len(dst):]) != tt.xoauth2 {
				t.Errorf("XOAUTH2: %q, %v; want %q", got, err, tt.xoauth2)
			}
		})
	}
}

// Where nothing is to be escaped, for it escapes nothing, go-sasl's client says the same.
func TestAppendOAuthBearerIsGoSASLs(t *testing.T) {
	_, theirs, err := sasl.NewOAuthBearerClient(&sasl.OAuthBearerOptions{Username: "alice@example.test", Token: "t", Host: "h", Port: 993}).Start()
	if err != nil {
		t.Fatal(err)
	}
	ours, err := AppendOAuthBearer(nil, "alice@example.test", "h", "993", []byte("t"))
	if err != nil || decoded(t, ours) != string(theirs) {
		t.Errorf("ours %q, %v; theirs %q", decoded(t, ours), err, theirs)
	}
}

func TestBearerParts(t *testing.T) {
	long := strings.Repeat("x", 6<<10)
	for name, tt := range map[string]struct {
		authcid, host, port, token string
		ok                         bool
	}{
		"6 KB":                      {"alice", "h", "1", long, true},
		"more than servers take":    {"alice", "h", "1", strings.Repeat("x", maxMessage), false},
		"no name":                   {"", "h", "1", "t", false},
		"no token":                  {"alice", "h", "1", "", false},
		"a name of two parts":       {"alice\x01auth=Bearer x", "h", "1", "t", false},
		"a name with NUL":           {"alice\x00", "h", "1", "t", false},
		"a name with a line's end":  {"alice\r\n", "h", "1", "t", false},
		"a name with DEL":           {"alice\x7f", "h", "1", "t", false},
		"a name not in UTF-8":       {"\xff", "h", "1", "t", false},
		"a token of two parts":      {"alice", "h", "1", "t\x01\x01", false},
		"a token with a space":      {"alice", "h", "1", "t t", false},
		"a token with a line's end": {"alice", "h", "1", "t\n", false},
		"a token not in ASCII":      {"alice", "h", "1", "tä", false},
		"a host of two parts":       {"alice", "h\x01x=y", "1", "t", false},
		"a port of two parts":       {"alice", "h", "1\x01", "t", false},
	} {
		got, err := AppendOAuthBearer(nil, tt.authcid, tt.host, tt.port, []byte(tt.token))
		if (err == nil) != tt.ok || err != nil && (!errors.Is(err, ErrMalformed) || len(got) > 0) {
			t.Errorf("%s: OAUTHBEARER %.40q, %v", name, got, err)
		}
		if strings.HasPrefix(name, "a host") || strings.HasPrefix(name, "a port") {
			continue // XOAUTH2 has none
		}
		if _, err := AppendXOAuth2(nil, tt.authcid, []byte(tt.token)); (err == nil) != tt.ok {
			t.Errorf("%s: XOAUTH2 %v", name, err)
		}
	}
}

func TestRefusalStatus(t *testing.T) {
	for text, want := range map[string]string{
		`{"status":"invalid_token","schemes":"bearer","scope":"mail"}`:           "invalid_token",
		`{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}`: "400",
		`{"status":401}`:            "401",
		`{"status":""}`:             "",
		`{}`:                        "",
		`[]`:                        "",
		`{"status":{"status":"x"}}`: "",
		`{"status":"two words"}`:    "",
		`{"status":"line\nend"}`:    "",
		`{"status":"` + strings.Repeat("x", 41) + `"}`: "",
		`no JSON`: "",
	} {
		if got := RefusalStatus([]byte(base64.StdEncoding.EncodeToString([]byte(text)))); got != want {
			t.Errorf("RefusalStatus of %q = %q, want %q", text, got, want)
		}
	}
	for _, challenge := range []string{"", "=", "not base64!", "eyJ"} {
		if got := RefusalStatus([]byte(challenge)); got != "" {
			t.Errorf("RefusalStatus(%q) = %q", challenge, got)
		}
	}
}

// go-sasl's server, which refuses by a challenge, is told the end of it.
func TestRefusalEnd(t *testing.T) {
	refuse := &sasl.OAuthBearerError{Status: "invalid_token"}
	server := sasl.NewOAuthBearerServer(func(sasl.OAuthBearerOptions) *sasl.OAuthBearerError { return refuse })
	encoded, err := AppendOAuthBearer(nil, "alice", "h", "1", []byte("t"))
	if err != nil {
		t.Fatal(err)
	}
	challenge, done, err := server.Next([]byte(decoded(t, encoded)))
	if done || err != nil {
		t.Fatalf("done %v, %v", done, err)
	}
	if got := RefusalStatus([]byte(base64.StdEncoding.EncodeToString(challenge))); got != "invalid_token" {
		t.Errorf("status %q of %q", got, challenge)
	}
	if _, done, err := server.Next([]byte(decoded(t, []byte(RefusalEnd(OAuthBearer))))); !done || err != refuse {
		t.Errorf("the end: done %v, %v", done, err)
	}
	if got := RefusalEnd(XOAuth2); got != "" {
		t.Errorf("XOAUTH2 ends with %q", got)
	}
}

// FuzzOAuthBearer: whatever is taken reads as what was meant, to go-sasl's server as well, and has as many parts as it says.
func FuzzOAuthBearer(f *testing.F) {
	f.Add("alice@example.test", "h", uint16(993), []byte("token"))
	f.Add("a=b,c", "", uint16(1), []byte("t=="))
	f.Add("a\x01auth=Bearer x", "h\x01", uint16(0), []byte("t\x01"))
	f.Fuzz(func(t *testing.T, authcid, host string, port uint16, token []byte) {
		encoded, err := AppendOAuthBearer(nil, authcid, host, strconv.Itoa(int(port)), token)
		if err != nil {
			return
		}
		message := decoded(t, encoded)
		parts := 5
		if host == "" {
			parts = 4
		}
		if got := strings.Count(message, "\x01"); got != parts {
			t.Errorf("%q has %d separators, want %d", message, got, parts)
		}
		want := sasl.OAuthBearerOptions{Username: gs2Escaper.Replace(authcid), Host: host, Port: int(port), Token: string(token)} // it undoes no escaping
		server := sasl.NewOAuthBearerServer(func(got sasl.OAuthBearerOptions) *sasl.OAuthBearerError {
			if got != want {
				t.Errorf("go-sasl reads %+v, want %+v", got, want)
			}
			return nil
		})
		if _, done, err := server.Next([]byte(message)); !done || err != nil {
			t.Errorf("go-sasl of %q: %v, %v", message, done, err)
		}
	})
}
