package protocols

import (
	"context"
	"crypto/tls"
	"errors"
)

// ErrNoRoute says that no backend is configured for an account and protocol.
var ErrNoRoute = errors.New("no backend is configured for this domain and protocol")

// Security says how a connection to a backend is protected.
type Security int

// The kinds of protection.
const (
	PlainText Security = iota
	ImplicitTLS
	StartTLS
)

// Route is one backend as seen by one account.
type Route struct {
	Backend  string // its name in configuration, logs and metrics
	Network  string // "tcp" or "unix"
	Address  string // host:port or the socket's path
	Security Security
	TLS      *tls.Config // verifies the backend; nil with PlainText
	Path     string      // DAV: the principal's path at the backend from the template, such as "/alice@example.test/"
	Login    string      // the account's name at the backend, from the template
	Open     OpenFunc    // opens the credential; called in the dialling step only
	Header   string      // DAV: the trusted header that takes Login; then Open is nil, or Bearer is set
	Bearer   bool        // what Open gives as the password is a token (RFC 6750); line protocols: of OAUTHBEARER or XOAUTH2
	XClient  bool        // submission: XCLIENT says who it is, by Login; then Open is nil
	Quirks   Quirks
	Pool     *Pool // connections that are ready for line protocols; nil: none are kept
}

// OpenFunc gives the credential that a backend takes for the route's account. The caller clears it.
type OpenFunc func(ctx context.Context) (Credential, error)

// Credential is what the gateway proves towards a backend: SASL PLAIN's three parts, HTTP Basic's two, or a token, which SASL sends with a name.
type Credential struct {
	Authzid  string // empty where the backend is to use Authcid
	Authcid  string
	Password []byte
	Refused  func() // is called when the backend has refused it, so that the next one is another; nil: nobody wants to know
}

// Clear overwrites the password.
func (c *Credential) Clear() { clear(c.Password) }

// Quirks are switches for backends that need them.
type Quirks struct {
	NoPipelining bool // IMAP: wait for each answer before the next command
	NoClientID   bool // don't tell the client's address: IMAP's ID, others' XCLIENT
}
