package route

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/authstore"
)

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func pkcs8(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// made fails the test where a key could not be made.
func made[K any](t testing.TB) func(K, error) K {
	return func(key K, err error) K {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
}

var hmacKey = bytes.Repeat([]byte("k"), minHMAC)

// keys are one of each kind, and how a backend that holds the other half checks a signature.
func keys(t testing.TB) map[string]struct {
	pem    []byte
	verify func(signed, signature []byte) bool
} {
	rsaKey := made[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048))
	public, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	verifyRSA := func(signed, signature []byte) bool {
		sum := sha256.Sum256(signed)
		return rsa.VerifyPKCS1v15(&rsaKey.PublicKey, crypto.SHA256, sum[:], signature) == nil
	}
	return map[string]struct {
		pem    []byte
		verify func(signed, signature []byte) bool
	}{
		"HS256": {pemOf("HMAC KEY", hmacKey), func(signed, signature []byte) bool {
			mac := hmac.New(sha256.New, hmacKey)
			mac.Write(signed)
			return hmac.Equal(mac.Sum(nil), signature)
		}},
		"RS256": {pemOf("PRIVATE KEY", pkcs8(t, rsaKey)), verifyRSA},
		"EdDSA": {pemOf("PRIVATE KEY", pkcs8(t, edKey)), func(signed, signature []byte) bool { return ed25519.Verify(public, signed, signature) }},
	}
}

// A token says who and when, and nothing else: Cyrus 3.6 refuses one that says more. It is signed once a minute.
func TestTokens(t *testing.T) {
	for alg, k := range keys(t) {
		t.Run(alg, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, err := NewSigner(k.pem)
				if err != nil {
					t.Fatal(err)
				}
				table, err := New([]Backend{{Name: "cyrus", Login: "{address}", Kind: JWT, Signer: s}}, []Rule{{"*", "calendar", "cyrus"}}, nil, nil)
				if err != nil {
					t.Fatal(err)
				}
				open := func(address string) string {
					t.Helper()
					r, err := table.Route(t.Context(), "calendar", authstore.Grant{Account: 1, Address: address})
					if err != nil {
						t.Fatal(err)
					}
					if !r.Bearer || r.Header != "" {
						t.Errorf("route is Bearer: %v, with the header %q", r.Bearer, r.Header)
					}
					c, err := r.Open(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					defer c.Clear()
					return string(c.Password)
				}
				time.Sleep(time.Until(time.Now().Truncate(time.Minute).Add(time.Minute + 20*time.Second)))
				first := open("alice@example.test")
				parts := strings.Split(first, ".")
				if len(parts) != 3 {
					t.Fatalf("token %q", first)
				}
				signature, err := base64.RawURLEncoding.DecodeString(parts[2])
				if err != nil || !k.verify([]byte(parts[0]+"."+parts[1]), signature) {
					t.Errorf("the signature does not fit: %v", err)
				}
				header, _ := base64.RawURLEncoding.DecodeString(parts[0])
				claims, _ := base64.RawURLEncoding.DecodeString(parts[1])
				if want := `{"alg":"` + alg + `","typ":"JWT"}`; string(header) != want {
					t.Errorf("header %s, want %s", header, want)
				}
				if want := fmt.Sprintf(`{"sub":"alice@example.test","iat":%d}`, time.Now().Unix()-80); string(claims) != want {
					t.Errorf("claims %s, want %s", claims, want)
				}
				key := s.key
				s.key = nil // signs nothing
				for range 2 {
					if again := open("alice@example.test"); again != first {
						t.Error("another token within the minute, or the kept one was cleared with its copy")
					}
				}
				s.key = key
				if open("bob@example.test") == first {
					t.Error("bob has alice's token")
				}
				time.Sleep(time.Minute)
				if open("alice@example.test") == first {
					t.Error("the same token a minute later")
				}
			})
		})
	}
}

func TestTokensKeptAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := NewSigner(pemOf("HMAC KEY", hmacKey))
		if err != nil {
			t.Fatal(err)
		}
		for i := range maxTokens + 1 {
			if _, err := s.token(fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(s.tokens); n == 0 || n > maxTokens {
			t.Errorf("%d tokens are kept, want 1 to %d", n, maxTokens)
		}
	})
}

// What is wrong with a key file is said with what to do.
func TestBadKeys(t *testing.T) {
	rsaKey := made[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048))
	small := made[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 1024))
	curve := made[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	good := pemOf("HMAC KEY", hmacKey)
	for want, text := range map[string][]byte{
		`it begins with "-----BEGIN HMAC KEY-----"`: []byte("c2VjcmV0\n"),
		"openssl rand -base64 32":                   pemOf("HMAC KEY", []byte("short")),
		"leave the one that is to sign":             append(good[:len(good):len(good)], good...),
		"name the private key":                      pemOf("PUBLIC KEY", made[[]byte](t)(x509.MarshalPKIXPublicKey(rsaKey.Public()))),
		"openssl pkey -in OLD":                      pemOf("ENCRYPTED PRIVATE KEY", []byte("x")),
		"openssl genpkey":                           pemOf("CERTIFICATE", []byte("x")),
		"make one of 3072":                          pemOf("PRIVATE KEY", pkcs8(t, small)),
		"make one of RSA or Ed25519":                pemOf("PRIVATE KEY", pkcs8(t, curve)),
		"elliptic curve":                            append(pemOf("EC PARAMETERS", []byte("x")), pemOf("EC PRIVATE KEY", []byte("x"))...), // openssl ecparam -genkey
	} {
		if s, err := NewSigner(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("NewSigner of %.40q = %v, %v; want an error with %q", text, s, err, want)
		}
	}
	if _, err := NewSigner(pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey))); err != nil {
		t.Errorf("an RSA key in the older form: %v", err)
	}
}

func BenchmarkToken(b *testing.B) {
	for alg, k := range keys(b) {
		s, err := NewSigner(k.pem)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(alg+"/kept", func(b *testing.B) {
			for b.Loop() {
				if _, err := s.token("alice@example.test"); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(alg+"/signed", func(b *testing.B) {
			for b.Loop() {
				s.born = time.Time{}
				if _, err := s.token("alice@example.test"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
