package route

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// A token serves for a minute, and says that it was made up to two minutes ago: Cyrus refuses what comes from the future, be it by a second.
const (
	tokenTime  = time.Minute
	tokenSlack = time.Minute
	maxTokens  = 4096
)

// Least sizes of keys: RFC 7518 sections 3.2 and 3.3.
const (
	minHMAC = 32   // bytes
	minRSA  = 2048 // bits
)

// Signer makes the tokens of the kind JWT (RFC 7519): {"alg","typ"} and {"sub","iat"}, nothing else, for Cyrus 3.6 refuses what holds more. Tokens are
// kept for their time, since RSA costs 700 microseconds of CPU each. Goroutines may share it.
type Signer struct {
	method jwt.SigningMethod
	key    any

	mu     sync.Mutex // guards the fields below
	born   time.Time  // what the kept ones say of their making
	tokens map[string][]byte
}

// NewSigner reads the key that signs from PEM: "HMAC KEY" as Cyrus has it (HS256), or a private key, RSA (RS256) or Ed25519 (EdDSA).
func NewSigner(text []byte) (*Signer, error) {
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, errors.New(`there is no key in PEM form; it begins with "-----BEGIN HMAC KEY-----" or "-----BEGIN PRIVATE KEY-----"`)
	}
	next, rest := pem.Decode(rest)
	if block.Type == "EC PARAMETERS" && next != nil { // "openssl ecparam -genkey" writes the curve before the key
		block = next
		next, _ = pem.Decode(rest)
	}
	if next != nil {
		return nil, errors.New("there is more than one key; leave the one that is to sign")
	}
	switch block.Type {
	case "HMAC KEY":
		if len(block.Bytes) < minHMAC {
			return nil, fmt.Errorf("an HMAC key of %d bytes can be guessed; make one with: openssl rand -base64 %d", len(block.Bytes), minHMAC)
		}
		return &Signer{method: jwt.SigningMethodHS256, key: block.Bytes}, nil
	case "PUBLIC KEY":
		return nil, errors.New("that is the public key, which the backend gets; name the private key that belongs to it")
	case "EC PRIVATE KEY":
		return nil, errOtherKey
	case "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("the key is locked with a passphrase; write it out without: openssl pkey -in OLD -out NEW")
	}
	return privateSigner(block)
}

var errOtherKey = errors.New("keys of its kind, such as of an elliptic curve (EC), are not used for tokens; make one of RSA or Ed25519, or an HMAC key")

func privateSigner(block *pem.Block) (*Signer, error) {
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		if key, err = x509.ParsePKCS1PrivateKey(block.Bytes); err != nil {
			return nil, fmt.Errorf("%q holds no key that can be used; make one with: openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072", block.Type)
		}
	}
	switch key := key.(type) {
	case ed25519.PrivateKey:
		return &Signer{method: jwt.SigningMethodEdDSA, key: crypto.Signer(key)}, nil
	case *rsa.PrivateKey:
		if key.N.BitLen() < minRSA {
			return nil, fmt.Errorf("an RSA key of %d bits is too weak; make one of 3072", key.N.BitLen())
		}
		return &Signer{method: jwt.SigningMethodRS256, key: key}, nil
	}
	return nil, errOtherKey
}

// token is a token for a name at the backend. The caller clears it.
func (s *Signer) token(login string) ([]byte, error) {
	born := time.Now().Truncate(tokenTime).Add(-tokenSlack)
	if kept := s.kept(born, login); kept != nil {
		return kept, nil
	}
	text, err := jwt.NewWithClaims(s.method, jwt.RegisteredClaims{Subject: login, IssuedAt: jwt.NewNumericDate(born)}).SignedString(s.key)
	if err != nil {
		return nil, fmt.Errorf("sign a token: %w", err)
	}
	s.keep(born, login, []byte(text))
	return []byte(text), nil
}

func (s *Signer) kept(born time.Time, login string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.born.Equal(born) {
		return nil
	}
	return append([]byte(nil), s.tokens[login]...) // nil stays nil
}

// keep puts a token beside others of its time, and clears those of another.
func (s *Signer) keep(born time.Time, login string, token []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.born.Equal(born) || len(s.tokens) >= maxTokens {
		for _, old := range s.tokens {
			clear(old)
		}
		s.born, s.tokens = born, make(map[string][]byte)
	}
	s.tokens[login] = token
}
