package davproxy

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"postern/authstore"
	"postern/protocols"
)

// maxBasic bounds what is read of an Authorization header, in bytes.
const maxBasic = 2048

// Errors of credentials.
var (
	errNoCredentials  = errors.New("no credentials that can be read")
	errTwoCredentials = errors.New("two Authorization headers")
)

// credentials reads the header Authorization. The caller clears the secret.
func credentials(h http.Header) (login string, secret []byte, err error) {
	values := h["Authorization"]
	if len(values) > 1 { // net/http would take the first, a backend maybe the last
		return "", nil, errTwoCredentials
	}
	if len(values) == 0 || len(values[0]) > maxBasic {
		return "", nil, errNoCredentials
	}
	scheme, encoded, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Basic") {
		return "", nil, errNoCredentials
	}
	plain, err := base64.StdEncoding.DecodeString(strings.Trim(encoded, " "))
	if err != nil {
		return "", nil, errNoCredentials
	}
	id, typed, found := bytes.Cut(plain, []byte(":"))
	if !found {
		clear(plain)
		return "", nil, errNoCredentials
	}
	return utf8Of(id), typed, nil
}

// utf8Of reads a name as Latin-1 if it isn't UTF-8: older clients send it so, whatever the challenge says.
func utf8Of(name []byte) string {
	if utf8.Valid(name) {
		return string(name)
	}
	runes := make([]rune, len(name))
	for i, b := range name {
		runes[i] = rune(b)
	}
	return string(runes)
}

// authenticate checks a request's credentials, which make the session's grant. An answer with a status ends the request.
func (ss *session) authenticate(r *http.Request) answer {
	login, secret, err := credentials(r.Header)
	switch err {
	case errTwoCredentials:
		return badRequest
	case errNoCredentials: // the first request of most clients; no attempt, so nothing is told of it
		return unauthenticated
	}
	defer clear(secret)
	began := time.Now()
	ss.grant, err = ss.server.o.Verifier.Verify(r.Context(), authstore.Attempt{
		Protocol: Protocol, Mechanism: "Basic", Login: login, Secret: secret, Client: ss.facts.Client.Addr(),
	})
	if err != nil {
		ss.tell(err, began)
		return refused(err)
	}
	return answer{}
}

// tell tells of a login that was refused.
func (ss *session) tell(err error, began time.Time) {
	ss.server.o.Observer.Login(protocols.LoginEvent{Facts: ss.facts, Mechanism: "Basic", Err: err, Duration: time.Since(began)})
}

// appOf is the client's name as it gave it, cut short.
func appOf(r *http.Request) string {
	app := strings.ToValidUTF8(r.UserAgent(), "?")
	if len(app) > maxApp {
		app = strings.ToValidUTF8(app[:maxApp], "")
	}
	return app
}

const maxApp = 100

// session is one request of a verified client. Its context ends when the grant does, or the client leaves.
type session struct {
	server *Server
	ctx    context.Context
	grant  authstore.Grant
	facts  protocols.Facts
	login  *loginState
}

// confirm is to be called right before anything that the grant allows is done.
func (ss *session) confirm() error {
	if err := context.Cause(ss.ctx); err != nil {
		return err
	}
	return ss.server.o.Verifier.Confirm(ss.ctx, ss.grant)
}
