package davproxy_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"postern/authstore"
	"postern/internal/testlab"
	"postern/protocols"
	"postern/protocols/davproxy"
)

// listed puts an account's collections into lines.
func listed(t *testing.T, r *protocols.Route, kind string) (lines []string) {
	t.Helper()
	list, err := davproxy.Collections(t.Context(), r, kind)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range list {
		lines = append(lines, l.String()+" | "+l.Title)
	}
	return lines
}

func title(line string) string {
	_, title, _ := strings.Cut(line, " | ")
	return title
}

// An account's collections are told by kind, sorted by title, under the names by which the front door serves them.
func TestCollections(t *testing.T) {
	t.Parallel()
	alice, bob := authstore.Grant{Address: testlab.Alice}, authstore.Grant{Address: testlab.Bob}
	for name, start := range map[string]func(testing.TB) *testlab.DAVServer{"radicale": testlab.Radicale, "xandikos": testlab.Xandikos} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := start(t)
			lab.Do(testlab.Alice, "PROPFIND", "/"+testlab.Alice+"/", "") // the labs make a user's home when they first see one
			lab.Do(testlab.Bob, "PROPFIND", "/"+testlab.Bob+"/", "")
			calendars, books := listed(t, to(lab)(alice), authstore.CalendarCollection), listed(t, to(lab)(alice), authstore.ContactsCollection)
			work := lab.MakeCalendar(testlab.Alice, "work")
			if status, answer := lab.Do(testlab.Alice, "MKCALENDAR", strings.TrimSuffix(work, "work/")+"Zu%20Hause%3B%20%C3%BC/", `<C:mkcalendar xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><set><prop>`+
				`<displayname>Daheim</displayname></prop></set></C:mkcalendar>`); status != 201 {
				t.Fatal(status, answer)
			}
			lab.MakeCalendar(testlab.Bob, "secret")
			lab.MakeAddressBook(testlab.Alice, "friends")
			if status, answer := lab.Do(testlab.Alice, "PROPPATCH", work, `<propertyupdate xmlns="DAV:"><set><prop><displayname>  Arbeit &amp;
	mehr </displayname></prop></set></propertyupdate>`); status != 207 {
				t.Fatal(status, answer)
			}
			for kind, want := range map[string][]string{
				authstore.CalendarCollection: append(calendars, "calendar/work | Arbeit & mehr", "calendar/Zu Hause; ü | Daheim"),
				authstore.ContactsCollection: append(books, "contacts/friends | friends"),
			} {
				got := listed(t, to(lab)(alice), kind)
				slices.Sort(want)
				if sorted := slices.Sorted(slices.Values(got)); !slices.Equal(sorted, want) {
					t.Errorf("%s: %q, want %q", kind, sorted, want)
				}
				sorted := slices.SortedFunc(slices.Values(got), func(a, b string) int {
					return strings.Compare(strings.ToLower(title(a)), strings.ToLower(title(b)))
				})
				if !slices.Equal(sorted, got) {
					t.Errorf("%s is not sorted by title: %q", kind, got)
				}
			}
			if got := listed(t, to(lab)(bob), authstore.ContactsCollection); !slices.Equal(got, books) {
				t.Errorf("Bob's address books: %q, want %q", got, books)
			}
		})
	}
}

func TestCollectionsThatCannotBeTold(t *testing.T) {
	t.Parallel()
	stopped, basic := testlab.Radicale(t), testlab.RadicaleBasic(t)
	alice := authstore.Grant{Address: testlab.Alice}
	stopped.Stop()
	with := func(lab *testlab.DAVServer, change func(*protocols.Route)) *protocols.Route {
		r := to(lab)(alice)
		r.Header = ""
		change(r)
		return r
	}
	wrong := func(context.Context) (protocols.Credential, error) {
		return protocols.Credential{Authcid: testlab.Alice, Password: []byte("wrong")}, nil
	}
	gone := errors.New("no password is stored")
	for name, tt := range map[string]struct {
		route *protocols.Route
		want  string
	}{
		"nobody listens":   {with(stopped, func(*protocols.Route) {}), "nobody listens there; start it"},
		"a wrong password": {with(basic, func(r *protocols.Route) { r.Open = wrong }), "it refused the gateway's user name or password"},
		"no credential": {with(basic, func(r *protocols.Route) {
			r.Open = func(context.Context) (protocols.Credential, error) { return protocols.Credential{}, gone }
		}), gone.Error()},
	} {
		list, err := davproxy.Collections(t.Context(), tt.route, authstore.CalendarCollection)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.route.Address) {
			t.Errorf("%s: %v, %v; want %q at its address", name, list, err, tt.want)
		}
	}
}

// What a server answers that is no DAV server, or is reached in the wrong way, is said with the key that mends it.
func TestExplainedAnswers(t *testing.T) {
	t.Parallel()
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	defer plain.Close()
	encrypted := httptest.NewTLSServer(http.NotFoundHandler())
	defer encrypted.Close()
	encrypted.Config.ErrorLog = log.New(io.Discard, "", 0)
	opened := func(context.Context) (protocols.Credential, error) {
		return protocols.Credential{Authcid: "alice", Password: []byte("x")}, nil
	}
	for name, tt := range map[string]struct {
		route *protocols.Route
		want  string
	}{
		"TLS to plain text": {&protocols.Route{Network: "tcp", Address: plain.Listener.Addr().String(), Security: protocols.ImplicitTLS, TLS: new(tls.Config)}, `or set tls = "none"`},
		"plain text to TLS": {&protocols.Route{Network: "tcp", Address: encrypted.Listener.Addr().String()}, `take tls = "none" out`},
		"no right":          {&protocols.Route{Network: "tcp", Address: plain.Listener.Addr().String(), Open: opened}, "it gives alice no right to /alice/"},
	} {
		tt.route.Path, tt.route.Login = "/alice/", "alice"
		if err := davproxy.Probe(t.Context(), tt.route); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q", name, err, tt.want)
		}
	}
}
