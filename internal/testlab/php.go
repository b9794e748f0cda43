package testlab

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

//go:embed sabre.php
var sabreScript string

// Sabre starts a sabre/dav, of the old version that Debian 12 has and Debian 13 has not (there the test is skipped), that believes the header X-Remote-User
// and keeps everybody to their own. Calendars and address books are in trees of their own, as in what builds on it (Baikal, Nextcloud).
func Sabre(t testing.TB) *DAVServer {
	t.Helper()
	Need(t, "php", "/usr/lib/php/*/dom.so", "/usr/lib/php/*/mbstring.so", "/usr/lib/php/*/pdo_sqlite.so", "setpriv")
	library := unpacked(t, "sabre")
	dir := Dir(t)
	unprivileged(t).folder(t, dir, "data")
	homes := layout{"/principals/USER/", "/calendars/USER/", "/addressbooks/USER/"}
	return phpDAV(t, "sabre", dir, homes, "AUTH=header", "include_path="+library, dir, write(t, sabreScript, dir, "sabre.php"))
}

//go:embed davical.php
var davicalScript string

const davicalConfig = `<?php
$c->pg_connect[] = 'host=%s dbname=davical user=lab';
`

// davicalHook is as DAViCal's documentation has it for a web server that has checked who it is.
const davicalHook = `$c->authenticate_hook['server_auth_type'] = 'lab';
include_once('AuthPlugins.php');
`

// DAViCal starts a DAViCal, with a PostgreSQL of its own, that believes the header X-Remote-User. It shows everybody's name to all, and takes a vCard into a
// calendar. Both kinds are in one tree.
func DAViCal(t testing.TB) *DAVServer {
	t.Helper()
	return davical(t, davicalHook, "AUTH=header")
}

// DAViCalBasic starts a DAViCal that asks for the primary password.
func DAViCalBasic(t testing.TB) *DAVServer {
	t.Helper()
	return davical(t, "", "AUTH=basic")
}

func davical(t testing.TB, hook, variable string) *DAVServer {
	t.Helper()
	Need(t, "php", "/usr/lib/php/*/dom.so", "/usr/lib/php/*/mbstring.so", "/usr/lib/php/*/pdo_pgsql.so", "/usr/lib/postgresql/*/bin/initdb", "setpriv")
	programs := unpacked(t, "davical")
	dir := Dir(t)
	database := startPostgreSQL(t, dir)
	app := filepath.Join(dir, "davical")
	if err := os.CopyFS(dir, os.DirFS(programs)); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(app, "config"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, fmt.Sprintf(davicalConfig, database)+hook, app, "config", "config.php")
	makeDAViCalTables(t, dir, database)
	home := layout{"/caldav.php/USER/", "/caldav.php/USER/", "/caldav.php/USER/"}
	return phpDAV(t, "davical", dir, home, variable, "include_path=.", filepath.Join(app, "htdocs"), write(t, davicalScript, dir, "router.php"))
}

// phpDAV serves a script by PHP's own web server, with an environment variable and a setting of PHP's.
func phpDAV(t testing.TB, name, dir string, where layout, variable, setting, root, script string) *DAVServer {
	t.Helper()
	port := Ports(t, 1)[0]
	argv := unprivileged(t).run("/usr/bin/env", "PHP_CLI_SERVER_WORKERS=4", variable, find("php"), "-d", setting, "-d", "opcache.enable_cli=1", "-d", "variables_order=EGPCS", "-S", local(port), "-t", root, script)
	return dav(t, name, dir, port, where, byHeader, argv...)
}

// startPostgreSQL starts a PostgreSQL that listens in the folder it returns, knows the superuser lab, and forgets all with the test.
func startPostgreSQL(t testing.TB, dir string) (socket string) {
	t.Helper()
	mine := unprivileged(t)
	socket = mine.folder(t, dir, "pg")
	data := filepath.Join(socket, "data")
	argv := mine.run(find("initdb"), "-D", data, "-U", "lab", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C")
	Run(t, Command(t, argv[0], argv[1:]...))
	argv = mine.run(find("postgres"), "-D", data)
	for _, setting := range []string{"listen_addresses=", "unix_socket_directories=" + socket, "fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=16MB"} {
		argv = append(argv, "-c", setting)
	}
	pg := serve(t, "postgres", dir, launch{
		argv:  argv,
		ready: func() error { return Command(t, "pg_isready", "-q", "-h", socket).Run() },
	})
	t.Cleanup(pg.Stop) // SIGKILL would leave shared memory behind
	return socket
}

// makeDAViCalTables does what DAViCal's script create-database.sh does, and makes the lab's users.
func makeDAViCalTables(t testing.TB, dir, socket string) {
	t.Helper()
	psql := func(args ...string) {
		t.Helper()
		cmd := Command(t, "psql", append([]string{"-h", socket, "-U", "lab", "-qXAt", "-v", "ON_ERROR_STOP=1"}, args...)...)
		cmd.Env = append(cmd.Env, "PGOPTIONS=--client-min-messages=warning")
		Run(t, cmd)
	}
	psql("-d", "postgres", "-c", "CREATE ROLE davical_dba", "-c", "CREATE ROLE davical_app", "-c", "CREATE DATABASE davical TEMPLATE template0")
	args := []string{"-d", "davical"}
	for _, file := range []string{
		"awl/dba/awl-tables.sql", "awl/dba/schema-management.sql", "davical/dba/davical.sql", "davical/dba/supported_locales.sql",
		"davical/dba/views/dav_principal.sql", "davical/dba/caldav_functions.sql", "davical/dba/rrule_functions.sql", "davical/dba/base-data.sql",
	} {
		args = append(args, "-f", filepath.Join(dir, file))
	}
	for _, user := range users {
		name, _, _ := strings.Cut(user, "@")
		args = append(args, "-c", fmt.Sprintf(`INSERT INTO dav_principal (type_id, username, password, email, fullname, email_ok, user_active)
			VALUES (1, '%s', '**%s', '%s', '%s', '%s', true)`, user, Primary(user), user, name, time.Now().Format(time.DateOnly)))
	}
	psql(args...)
}
