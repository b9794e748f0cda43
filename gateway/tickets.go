package gateway

import (
	"crypto/tls"
	"time"

	"postern/authstore/secret"
)

// tickets let apps resume their TLS sessions, on every node that has the same key file and after a restart. A ticket is good for every
// listener: it holds no name and no protocol, these are agreed on anew, and no client proves anything by a certificate.
type tickets struct {
	keys func() *secret.Keyring // those in force
}

// wrap implements tls.Config.WrapSession. TLS 1.2 gets an empty ticket, which is none (RFC 5077 section 3.3): whoever had a ticket's key
// later could read what was recorded of its session. TLS 1.3 agrees on a new key each time.
func (t tickets) wrap(cs tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
	if cs.Version < tls.VersionTLS13 {
		return nil, nil
	}
	state, err := session.Bytes()
	if err != nil {
		return nil, err
	}
	return t.keys().SealTicket(state, time.Now())
}

// unwrap implements tls.Config.UnwrapSession. A ticket that does not open is no error: the handshake is a full one.
func (t tickets) unwrap(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
	if cs.Version < tls.VersionTLS13 {
		return nil, nil
	}
	state, err := t.keys().OpenTicket(ticket, time.Now())
	if err != nil {
		return nil, nil
	}
	session, err := tls.ParseSessionState(state)
	if err != nil { // another version of Go wrote it
		return nil, nil
	}
	return session, nil
}
