// Package saslauth is SASL (RFC 4422) as the front doors use it: the server's side of PLAIN and LOGIN towards clients, the client's side
// of PLAIN, OAUTHBEARER and XOAUTH2 towards backends. It decides nothing and reads no connection. Secrets are bytes that can be cleared;
// go-sasl, which the tests compare it with, makes strings of them, which stay in memory until they are overwritten by chance.
package saslauth

import (
	"bytes"
	"encoding/base64"
	"errors"
	"unicode/utf8"
)

// The mechanisms' registered names.
const (
	Plain = "PLAIN"
	Login = "LOGIN"
)

// Bounds of what is believed to be a name or a secret, in bytes.
const (
	maxName   = 255 // RFC 4616 section 2
	maxSecret = 1024
)

// Errors of exchanges.
var (
	ErrMalformed = errors.New("malformed SASL response") // it is none of its mechanism
	ErrCancelled = errors.New("cancelled")               // by the client, with "*"
)

// Credentials are what an exchange brought.
type Credentials struct {
	Authzid string // empty: the same as Authcid
	Authcid string
	Secret  []byte
}

// Clear overwrites the secret.
func (c *Credentials) Clear() { clear(c.Secret) }

// Exchange is the server's side of one exchange.
type Exchange interface {
	// Next takes the client's response, decoded (nil: the client gave no initial one), and returns the credentials, which the
	// caller clears, or else the challenge to send. The response is not kept. The error is ErrMalformed.
	Next(response []byte) (challenge []byte, c *Credentials, err error)
}

// NewExchange begins an exchange; nil: the mechanism, which is in capitals, is not offered.
func NewExchange(mechanism string) Exchange {
	switch mechanism {
	case Plain:
		return plain{}
	case Login:
		return new(login)
	}
	return nil
}

// Run leads an exchange to its end. initial is the client's initial response as it stands on the wire; nil: it gave none. ask sends a
// challenge, in base64, and returns the client's line. The caller clears what is returned. The errors are ErrMalformed, ErrCancelled,
// and ask's.
func Run(x Exchange, initial []byte, ask func(challenge string) (line []byte, err error)) (*Credentials, error) {
	var response []byte
	var err error
	if initial != nil {
		if response, err = Decode(initial); err != nil {
			return nil, err
		}
	}
	for {
		challenge, credentials, err := x.Next(response)
		if err != nil || credentials != nil {
			return credentials, err
		}
		line, err := ask(base64.StdEncoding.EncodeToString(challenge))
		switch {
		case err != nil:
			return nil, err
		case string(line) == "*":
			return nil, ErrCancelled
		}
		if response, err = Decode(line); err != nil {
			return nil, err
		}
	}
}

type plain struct{}

// Next takes [authzid] NUL authcid NUL passwd (RFC 4616 section 2).
func (plain) Next(response []byte) ([]byte, *Credentials, error) {
	if response == nil {
		return nil, nil, nil
	}
	authzid, rest, _ := bytes.Cut(response, []byte{0})
	authcid, secret, ok := bytes.Cut(rest, []byte{0})
	if !ok || bytes.IndexByte(secret, 0) >= 0 || len(authzid) > maxName {
		return nil, nil, ErrMalformed
	}
	c, err := credentials(authcid, secret)
	if err != nil || !utf8.Valid(authzid) {
		return nil, nil, ErrMalformed
	}
	c.Authzid = string(authzid)
	return nil, c, nil
}

// The prompts of LOGIN, which never became a standard: clients compare them byte by byte.
var (
	askName   = []byte("Username:")
	askSecret = []byte("Password:")
)

// login is draft-murchison-sasl-login: the name, then the secret.
type login struct{ authcid []byte }

func (l *login) Next(response []byte) ([]byte, *Credentials, error) {
	switch {
	case response == nil:
		return askName, nil, nil
	case l.authcid == nil:
		if len(response) == 0 || len(response) > maxName || bytes.IndexByte(response, 0) >= 0 {
			return nil, nil, ErrMalformed
		}
		l.authcid = bytes.Clone(response)
		return askSecret, nil, nil
	}
	if bytes.IndexByte(response, 0) >= 0 {
		return nil, nil, ErrMalformed
	}
	c, err := credentials(l.authcid, response)
	return nil, c, err
}

func credentials(authcid, secret []byte) (*Credentials, error) {
	if len(authcid) == 0 || len(authcid) > maxName || len(secret) == 0 || len(secret) > maxSecret || !utf8.Valid(authcid) {
		return nil, ErrMalformed
	}
	return &Credentials{Authcid: string(authcid), Secret: bytes.Clone(secret)}, nil
}

// Decode decodes a response as it stands on the wire, over its own bytes. "=" is the empty initial response (RFC 4959 section 3).
func Decode(line []byte) ([]byte, error) {
	if string(line) == "=" {
		return line[:0], nil
	}
	if bytes.ContainsAny(line, "\r\n") { // the decoder passes over them
		return nil, ErrMalformed
	}
	n, err := base64.StdEncoding.Strict().Decode(line, line)
	if err != nil {
		return nil, ErrMalformed
	}
	return line[:n], nil
}

// AppendPlain appends PLAIN's only message, encoded, as a client sends it: authzid may be empty. The caller clears it. A NUL in any
// part, or an empty authcid or secret, is ErrMalformed: the backend would read other parts than those meant.
func AppendPlain(dst []byte, authzid, authcid string, secret []byte) ([]byte, error) {
	message := make([]byte, 0, len(authzid)+len(authcid)+len(secret)+2)
	defer func() { clear(message[:cap(message)]) }()
	message = append(message, authzid...)
	message = append(append(message, 0), authcid...)
	message = append(append(message, 0), secret...)
	if authcid == "" || len(secret) == 0 || bytes.Count(message, []byte{0}) != 2 {
		return dst, ErrMalformed
	}
	return base64.StdEncoding.AppendEncode(dst, message), nil
}
