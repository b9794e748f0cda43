package davproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-webdav/caldav"
	"github.com/emersion/go-webdav/carddav"

	"postern/authstore"
	"postern/protocols"
)

// homeLife is how long a backend's answer to "where are the collections" is believed.
const homeLife = 5 * time.Minute

type homeKey struct {
	kind                           kind
	backend, address, login, asked string
}

type homePaths struct{ principal, home []string }

// Errors of discovery.
var (
	errOtherPrincipal = errors.New("the backend's principal is not the configured one")
	errNoHome         = errors.New("the backend names no home for these collections")
	errHomePath       = errors.New("the backend's home can't be used")
)

// mountOf finds the home of a kind at its backend. Where the backend does not tell, the mount has only the route; nil: there is none.
func (ss *session) mountOf(k kind) (*mount, error) {
	s := ss.server
	r, err := s.o.Router.Route(ss.ctx, k.String(), ss.grant)
	if err != nil {
		return nil, err
	}
	key := homeKey{k, r.Backend, r.Address, r.Login, r.Path}
	paths, ok := s.homes.get(key)
	if !ok {
		if paths, err = discover(ss.ctx, &davClient{ss.do, r}, k); err != nil {
			return &mount{kind: k, route: r}, err
		}
		s.homes.put(key, paths, homeLife)
	}
	return &mount{kind: k, id: ss.grant.PublicID, route: r, principal: paths.principal, home: paths.home}, nil
}

// davClient is what go-webdav's clients speak through.
type davClient struct {
	do    func(*protocols.Route, *http.Request) (*http.Response, error)
	route *protocols.Route
}

// Do bounds what is read. A status that says nothing about discovery becomes an error here, since go-webdav's can't be told apart.
func (c *davClient) Do(req *http.Request) (*http.Response, error) {
	if !strings.HasSuffix(req.URL.Path, "/") { // go-webdav takes it off, and some servers answer with a redirect then
		req.URL = req.URL.JoinPath("/")
	}
	resp, err := c.do(c.route, req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusMultiStatus {
		discard(resp)
		return nil, &statusError{resp.StatusCode}
	}
	resp.Body = &boundedBody{io.LimitReader(resp.Body, maxMetadata), resp.Body}
	return resp, nil
}

type boundedBody struct {
	io.Reader
	io.Closer
}

// statusError is a backend's answer that does not help.
type statusError struct{ status int }

func (e *statusError) Error() string {
	return fmt.Sprintf("status %d %s", e.status, http.StatusText(e.status))
}

// discover asks the backend for the principal and its home. What the backend names must be what the template made: a backend
// that takes everybody for the same person must not show one account's data to all.
func discover(ctx context.Context, c *davClient, k kind) (homePaths, error) {
	ctx, cancel := context.WithTimeout(ctx, metadataTime)
	defer cancel()
	asked, err := decoded(c.route.Path)
	if err != nil {
		return homePaths{}, fmt.Errorf("the principal's path %q: %w", c.route.Path, err)
	}
	found, err := findPrincipal(ctx, c, asked)
	if err != nil {
		return homePaths{}, fmt.Errorf("ask for the principal: %w", err)
	}
	if len(asked) > 0 && !slices.Equal(found, asked) {
		return homePaths{}, fmt.Errorf("%w: %s, not %s", errOtherPrincipal, join(found), join(asked))
	}
	home, err := findHome(ctx, c, k, found)
	if err != nil {
		return homePaths{}, err
	}
	return homePaths{found, home}, nil
}

func findPrincipal(ctx context.Context, c *davClient, asked []string) ([]string, error) {
	client, err := caldav.NewClient(c, base(c.route)+join(asked))
	if err != nil {
		return nil, err
	}
	path, err := client.FindCurrentUserPrincipal(ctx)
	if err != nil {
		return nil, err
	}
	return decoded(path)
}

func findHome(ctx context.Context, c *davClient, k kind, at []string) ([]string, error) {
	path, err := askHome(ctx, c, k, at)
	if _, failed := errors.AsType[*statusError](err); failed || ctx.Err() != nil {
		return nil, fmt.Errorf("ask for the home of %s: %w", k, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w (%s): %w", errNoHome, k, err)
	}
	home, err := decoded(path)
	if err != nil || len(home) == 0 { // all of the server would be one account's
		return nil, fmt.Errorf("%w (%s): %q", errHomePath, k, path)
	}
	return home, nil
}

func askHome(ctx context.Context, c *davClient, k kind, at []string) (string, error) {
	path := "/" + strings.Join(at, "/") + "/" // go-webdav escapes it
	if k == contacts {
		client, err := carddav.NewClient(c, base(c.route))
		if err != nil {
			return "", err
		}
		return client.FindAddressBookHomeSet(ctx, path)
	}
	client, err := caldav.NewClient(c, base(c.route))
	if err != nil {
		return "", err
	}
	return client.FindCalendarHomeSet(ctx, path)
}

// decoded takes a path apart that has no escapes.
func decoded(path string) ([]string, error) {
	var segments []string
	for s := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if s == "" && strings.Trim(path, "/") == "" {
			break
		}
		if !plain(s) {
			return nil, errPath
		}
		segments = append(segments, s)
	}
	return segments, nil
}

// Probe logs in to a backend and looks for the principal and its homes, as for an app. Its error says in plain words what is wrong
// and what to do.
func Probe(ctx context.Context, r *protocols.Route) error {
	transport := newTransport(r, silent{})
	defer transport.CloseIdleConnections()
	c := &davClient{route: r, do: func(r *protocols.Route, req *http.Request) (*http.Response, error) {
		if err := authorize(req, r); err != nil {
			return nil, err
		}
		return transport.RoundTrip(req)
	}}
	_, errCalendar := discover(ctx, c, calendar)
	if errCalendar == nil {
		return nil
	}
	if errors.Is(errCalendar, errNoHome) {
		if _, err := discover(ctx, c, contacts); err == nil {
			return nil
		}
	}
	return explain(r, errCalendar)
}

type silent struct{}

func (silent) Login(protocols.LoginEvent)                   {}
func (silent) Ended(protocols.EndEvent)                     {}
func (silent) Backend(string, string, time.Duration, error) {}

// explain adds what to do to an error of discovery.
func explain(r *protocols.Route, err error) error {
	where := r.Address
	if s, ok := errors.AsType[*statusError](err); ok {
		return fmt.Errorf("%s: %s: %w", where, adviseStatus(r, s.status), err)
	}
	switch {
	case errors.Is(err, errStartTLS), errors.Is(err, authstore.ErrNotFound):
		return fmt.Errorf("%s: %w", where, err)
	case errors.Is(err, errOtherPrincipal):
		return fmt.Errorf(`%s: %w; let principal name it, such as "/{address}/", or look whether the backend takes everybody for the same person`, where, err)
	case errors.Is(err, errNoHome):
		return fmt.Errorf("%s: %s is no principal that has calendars or contacts; look at principal: %w", where, r.Path, err)
	case errors.Is(err, errHomePath), errors.Is(err, errPath):
		return fmt.Errorf("%s: paths with dots, doubled slashes or escapes can't be used, nor the root as a home: %w", where, err)
	}
	return protocols.Explain(r, err, "")
}

func adviseStatus(r *protocols.Route, status int) string {
	switch {
	case status == http.StatusForbidden && r.Header != "":
		return fmt.Sprintf("it does not take the account's name from the header %s, or gives %s no right to %s; let it trust that header from this machine, and look at login, principal and its own rules on rights", r.Header, r.Login, r.Path)
	case status == http.StatusUnauthorized && r.Header != "":
		return fmt.Sprintf("it does not take the account's name from the header %s; let it trust that header from this machine", r.Header)
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
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
