package davproxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"postern/authstore"
	"postern/protocols"
)

// Probe logs in to a backend and looks for the principal and its homes, as for an app. Its error says in plain words what is wrong
// and what to do.
func Probe(ctx context.Context, r *protocols.Route) error {
	c, done := directly(r)
	defer done()
	_, errCalendar := discover(ctx, c, calendar)
	if errCalendar == nil {
		return nil
	}
	if errors.Is(errCalendar, errNoHome) {
		if _, err := discover(ctx, c, contacts); err == nil {
			return nil
		}
	}
	return Explain(r, errCalendar)
}

type silent struct{}

func (silent) Login(protocols.LoginEvent) {}

func (silent) Ended(protocols.EndEvent) {}

func (silent) Backend(string, string, time.Duration, error) {}

// Explain adds what to do to an error of discovery, or of reaching a backend. No error stays none.
func Explain(r *protocols.Route, err error) error {
	where := r.Address
	if s, ok := errors.AsType[*statusError](err); ok {
		return fmt.Errorf("%s: %s: %w", where, adviseStatus(r, s.status), err)
	}
	switch {
	case errors.Is(err, errStartTLS), errors.Is(err, authstore.ErrNotFound):
		return fmt.Errorf("%s: %w", where, err)
	case errors.Is(err, errOtherPrincipal):
		return fmt.Errorf(`%s: %w; let principal name it, such as "/{address}/", or look whether the backend takes everybody for the same person`, where, err)
	case errors.Is(err, errNoHome), errors.Is(err, errNoPrincipal):
		return fmt.Errorf("%s: %s is no principal that has calendars or contacts; look at principal: %w", where, r.Path, err)
	case errors.Is(err, errManyCollections), errors.Is(err, errLongList):
		return fmt.Errorf("%s: %w; an app password for this account can't be narrowed to some of them", where, err)
	case errors.Is(err, errHomePath), errors.Is(err, errPath):
		return fmt.Errorf("%s: paths with dots, doubled slashes or escapes can't be used, nor the root as a home: %w", where, err)
	}
	if r.Security == protocols.PlainText && errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%s: it hung up; look at its log, and take tls = \"none\" out if it speaks TLS: %w", where, err)
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return fmt.Errorf("%s: it does not speak TLS there; name the port that does, or set tls = \"none\" (loopback and private networks only): %w", where, err)
	}
	return protocols.Explain(r, err, "")
}

func adviseStatus(r *protocols.Route, status int) string {
	switch {
	case status == http.StatusUnauthorized && r.Bearer && r.Header != "":
		return fmt.Sprintf("it refused the token in password_file, or does not take the account's name from the header %s; let it take that token, and trust that header with it", r.Header)
	case status == http.StatusUnauthorized && r.Bearer:
		return "it refused the token that key_file signed, or that the account's OAuth provider gave. OAuth: look whether the provider gives tokens for this server (scopes), and connect the account again. Cyrus: " +
			"the same HMAC key, or the public key, must stand in http_jwt_key_dir, in files that it can read (restart it after a change; " +
			"it takes HMAC and RSA, not Ed25519); http_jwt_max_age must be 5m or more, and both clocks agree"
	case status == http.StatusBadRequest && r.Security == protocols.ImplicitTLS:
		return "it took the connection, but no request; nginx answers so where it wants a certificate of ours: client_cert, signed by the authority that it trusts"
	case status == http.StatusBadRequest:
		return "it took no request; nginx answers so at a port that speaks TLS: take tls = \"none\" out then"
	case status == http.StatusForbidden && r.Header != "":
		return fmt.Sprintf("it does not take the account's name from the header %s, or gives %s no right to %s; let it trust that header from this machine, and look at login, principal and its own rules on rights", r.Header, r.Login, r.Path)
	case status == http.StatusUnauthorized && r.Header != "":
		return fmt.Sprintf("it does not take the account's name from the header %s; let it trust that header from this machine", r.Header)
	case status == http.StatusForbidden:
		return fmt.Sprintf("it gives %s no right to %s; look at the credential, login and principal, and its own rules on rights", r.Login, r.Path)
	case status == http.StatusUnauthorized:
		return "it refused the gateway's user name or password; look at the credential"
	case status == http.StatusNotFound:
		return fmt.Sprintf("it has nothing at %s; look at principal, and whether the account exists there", r.Path)
	case status/100 == 3:
		return "it leads elsewhere; give the address and the path that it leads to"
	case status >= 500:
		return "it is there but does not work; look at its log"
	}
	return "it does not speak CalDAV or CardDAV there; look at address and principal"
}
