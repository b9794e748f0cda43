package testlab

import (
	_ "embed"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// python is Debian's, which has Debian's packages; another may come first in PATH.
const python = "/usr/bin/python3"

// DAVServer is a CalDAV and CardDAV server on plain HTTP.
type DAVServer struct {
	*Server
	URL string // without a slash at the end

	layout layout
	actAs  func(req *http.Request, user string)
}

// layout says where things are, as paths in which USER stands for the user.
type layout struct{ principal, calendars, addressBooks string }

// shared is a tree that holds both kinds, and is the principal too.
var shared = layout{"/USER/", "/USER/", "/USER/"}

func (layout) of(user, path string) string { return strings.ReplaceAll(path, "USER", user) }

// Principal is the path of a user's principal.
func (d *DAVServer) Principal(user string) string { return d.layout.of(user, d.layout.principal) }

// Calendars is the path of the folder that holds a user's calendars.
func (d *DAVServer) Calendars(user string) string { return d.layout.of(user, d.layout.calendars) }

// AddressBooks is the path of the folder that holds a user's address books.
func (d *DAVServer) AddressBooks(user string) string { return d.layout.of(user, d.layout.addressBooks) }

// byHeader tells a server who acts in the header X-Remote-User, and gives the primary password.
func byHeader(req *http.Request, user string) {
	req.Header.Set("X-Remote-User", user)
	req.SetBasicAuth(user, Primary(user))
}

// Do sends a request as a user and returns the answer. XML, iCalendar and vCard bodies get their content type.
func (d *DAVServer) Do(user, method, path, body string, header ...string) (status int, answer string) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), method, d.URL+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	d.actAs(req, user)
	req.Header.Set("Content-Type", contentType(body))
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := httpClient.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func contentType(body string) string {
	switch {
	case strings.HasPrefix(body, "BEGIN:VCALENDAR"):
		return "text/calendar; charset=utf-8"
	case strings.HasPrefix(body, "BEGIN:VCARD"):
		return "text/vcard; charset=utf-8"
	default:
		return "application/xml; charset=utf-8"
	}
}

// MakeCalendar makes a calendar of a user and returns its path.
func (d *DAVServer) MakeCalendar(user, name string) string {
	d.t.Helper()
	path := d.Calendars(user) + name + "/"
	d.must(http.StatusCreated, user, "MKCALENDAR", path, `<C:mkcalendar xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><set><prop>`+
		`<displayname>`+name+`</displayname></prop></set></C:mkcalendar>`)
	return path
}

// MakeAddressBook makes an address book of a user and returns its path.
func (d *DAVServer) MakeAddressBook(user, name string) string {
	d.t.Helper()
	path := d.AddressBooks(user) + name + "/"
	d.must(http.StatusCreated, user, "MKCOL", path, `<mkcol xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:carddav"><set><prop>`+
		`<resourcetype><collection/><C:addressbook/></resourcetype><displayname>`+name+`</displayname></prop></set></mkcol>`)
	return path
}

// Put stores an event, a to-do or a card that is not there yet.
func (d *DAVServer) Put(user, path, body string) {
	d.t.Helper()
	d.must(http.StatusCreated, user, "PUT", path, body, "If-None-Match", "*")
}

func (d *DAVServer) must(want int, user, method, path, body string, header ...string) {
	d.t.Helper()
	if status, answer := d.Do(user, method, path, body, header...); status != want {
		d.t.Fatalf("%s %s as %s: status %d, want %d: %s", method, path, user, status, want, answer)
	}
}

// Radicale starts a Radicale that believes the header X-Remote-User, and keeps everybody to their own.
func Radicale(t testing.TB) *DAVServer {
	t.Helper()
	return radicale(t, "type = http_x_remote_user")
}

// RadicaleBasic starts a Radicale that asks for the primary password.
func RadicaleBasic(t testing.TB) *DAVServer {
	t.Helper()
	var lines strings.Builder
	for _, user := range users {
		fmt.Fprintf(&lines, "%s:%s\n", user, Primary(user))
	}
	file := write(t, lines.String(), Dir(t), "users")
	return radicale(t, "type = htpasswd\nhtpasswd_filename = "+file+"\nhtpasswd_encryption = plain\ndelay = 0")
}

const radicaleConfig = `[server]
hosts = 127.0.0.1:%d
max_connections = 100
[auth]
%s
[rights]
type = owner_only
[storage]
filesystem_folder = %s
[web]
type = none
[logging]
level = info
`

func radicale(t testing.TB, auth string) *DAVServer {
	t.Helper()
	Need(t, "radicale")
	dir, port := Dir(t), Ports(t, 1)[0]
	config := write(t, fmt.Sprintf(radicaleConfig, port, auth, filepath.Join(dir, "collections")), dir, "config")
	return dav(t, "radicale", dir, port, shared, byHeader, python, "-W", "ignore", find("radicale"), "--config", config)
}

//go:embed xandikos_users.py
var xandikosStarter string

// Xandikos starts a Xandikos that believes the header X-Remote-User, and makes /USER/ with a calendar and an address book when it first sees a user. It
// lets everybody into everything: only who stands in front keeps users apart.
func Xandikos(t testing.TB) *DAVServer {
	t.Helper()
	Need(t, "xandikos")
	dir, port := Dir(t), Ports(t, 1)[0]
	starter := write(t, xandikosStarter, dir, "start.py")
	data := filepath.Join(dir, "collections")
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	homes := layout{"/USER/", "/USER/calendars/", "/USER/contacts/"}
	return dav(t, "xandikos", dir, port, homes, byHeader, python, "-W", "ignore", starter, data, strconv.Itoa(port))
}

func dav(t testing.TB, name, dir string, port int, where layout, actAs func(*http.Request, string), argv ...string) *DAVServer {
	t.Helper()
	d := &DAVServer{URL: "http://" + local(port), layout: where, actAs: actAs}
	d.Server = serve(t, name, dir, launch{argv: argv, ready: func() error { return answers(d.URL) }})
	return d
}

// httpClient keeps no connections, since servers come and go.
var httpClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}

// answers tells whether HTTP is spoken at url, whatever the status.
func answers(url string) error {
	resp, err := httpClient.Get(url)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
