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

// DAVServer is a CalDAV and CardDAV server on plain HTTP. Each user owns /USER/.
type DAVServer struct {
	*Server
	URL string // without a slash at the end

	calendars, addressBooks string // where they are below /USER/
}

// Do sends a request as a user, who is told in the header X-Remote-User and by the primary password, and returns the answer. XML and iCalendar bodies get their content type.
func (d *DAVServer) Do(user, method, path, body string, header ...string) (status int, answer string) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), method, d.URL+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	req.Header.Set("X-Remote-User", user)
	req.SetBasicAuth(user, Primary(user))
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
	path := "/" + user + "/" + d.calendars + name + "/"
	d.must(http.StatusCreated, user, "MKCALENDAR", path, `<C:mkcalendar xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><set><prop>`+
		`<displayname>`+name+`</displayname></prop></set></C:mkcalendar>`)
	return path
}

// MakeAddressBook makes an address book of a user and returns its path.
func (d *DAVServer) MakeAddressBook(user, name string) string {
	d.t.Helper()
	path := "/" + user + "/" + d.addressBooks + name + "/"
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
	return dav(t, "radicale", dir, port, python, "-W", "ignore", find("radicale"), "--config", config)
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
	d := dav(t, "xandikos", dir, port, python, "-W", "ignore", starter, data, strconv.Itoa(port))
	d.calendars, d.addressBooks = "calendars/", "contacts/"
	return d
}

func dav(t testing.TB, name, dir string, port int, argv ...string) *DAVServer {
	t.Helper()
	d := &DAVServer{URL: "http://" + local(port)}
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
