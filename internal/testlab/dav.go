package testlab

import (
	_ "embed"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// python is Debian's, which has Debian's packages; another may come first in PATH.
const python = "/usr/bin/python3"

// DAVServer is a CalDAV and CardDAV server on plain HTTP.
type DAVServer struct {
	*Server
	URL string // without a slash at the end
}

// Radicale starts a Radicale that believes the header X-Remote-User; each user owns /USER/.
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
	dir := Dir(t)
	return dav(t, "radicale", dir, func(port int) []string {
		config := write(t, fmt.Sprintf(radicaleConfig, port, auth, filepath.Join(dir, "collections")), dir, "config")
		return []string{python, "-W", "ignore", find("radicale"), "--config", config}
	})
}

//go:embed xandikos_users.py
var xandikosStarter string

// Xandikos starts a Xandikos that believes the header X-Remote-User, and makes /USER/ with a calendar and an address book when it first sees a user. It
// lets everybody into everything: only who stands in front keeps users apart.
func Xandikos(t testing.TB) *DAVServer {
	t.Helper()
	Need(t, "xandikos")
	dir := Dir(t)
	starter := write(t, xandikosStarter, dir, "start.py")
	data := filepath.Join(dir, "collections")
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	return dav(t, "xandikos", dir, func(port int) []string {
		return []string{python, "-W", "ignore", starter, data, strconv.Itoa(port)}
	})
}

func dav(t testing.TB, name, dir string, argv func(port int) []string) *DAVServer {
	t.Helper()
	d := &DAVServer{}
	d.Server = serve(t, name, dir, 1, func(ports []int) launch {
		d.URL = "http://" + local(ports[0])
		return launch{argv: argv(ports[0]), ready: func() error { return answers(d.URL) }}
	})
	return d
}

// answers tells whether HTTP is spoken at url, whatever the status.
func answers(url string) error {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
