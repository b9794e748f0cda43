package davproxy_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testlab"
)

const vdirsyncerConfig = `[general]
status_path = "@DIR@/status/"

[pair work]
a = "local_work"
b = "remote_work"
collections = ["from a", "from b"]

[storage local_work]
type = "filesystem"
path = "@DIR@/calendars/"
fileext = ".ics"

[storage remote_work]
type = "caldav"
url = "@URL@/"
verify = "@CA@"
username = "alice@example.test"
password = "@PASSWORD@"

[pair friends]
a = "local_friends"
b = "remote_friends"
collections = ["from a", "from b"]

[storage local_friends]
type = "filesystem"
path = "@DIR@/contacts/"
fileext = ".vcf"

[storage remote_friends]
type = "carddav"
url = "@URL@/"
verify = "@CA@"
username = "alice@example.test"
password = "@PASSWORD@"
`

// vdirsyncer is one with a pair of each kind, whose folders are calendars and contacts in dir.
type vdirsyncer struct {
	t           *testing.T
	dir, config string
}

func newVdirsyncer(t *testing.T, d *door, password string) *vdirsyncer {
	t.Helper()
	v := &vdirsyncer{t: t, dir: t.TempDir()}
	v.config = filepath.Join(v.dir, "config")
	v.write("config", strings.NewReplacer("@DIR@", v.dir, "@URL@", d.url, "@CA@", d.ca.File, "@PASSWORD@", password).Replace(vdirsyncerConfig))
	for _, sub := range []string{"calendars", "contacts"} {
		if err := os.Mkdir(filepath.Join(v.dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

// write writes a file in the folder.
func (v *vdirsyncer) write(name, text string) {
	v.t.Helper()
	file := filepath.Join(v.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		v.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		v.t.Fatal(err)
	}
}

// glob lists files in the folder, by what comes behind it.
func (v *vdirsyncer) glob(pattern string) []string {
	v.t.Helper()
	files, err := filepath.Glob(filepath.Join(v.dir, pattern))
	if err != nil {
		v.t.Fatal(err)
	}
	for i := range files {
		files[i] = strings.TrimPrefix(files[i], v.dir+"/")
	}
	return files
}

func (v *vdirsyncer) run(args ...string) {
	v.t.Helper()
	cmd := testlab.Command(v.t, "vdirsyncer", append([]string{"--config", v.config}, args...)...)
	cmd.Stdin = strings.NewReader(strings.Repeat("y\n", 20)) // yes, make what is missing on the other side
	testlab.Run(v.t, cmd)
}

func TestVdirsyncerSyncsBothWays(t *testing.T) {
	eachSite(t, func(t *testing.T, d *door) {
		d.want(201, "both", "MKCALENDAR", cal+"work/", makeCal)
		d.want(201, "both", "PUT", cal+"work/1.ics", testlab.Event("theirs"))
		d.want(201, "both", "PUT", cal+"work/2.ics", testlab.Todo("theirs too"))
		v := newVdirsyncer(t, d, "both")
		v.write("contacts/mine/1.vcf", testlab.Card("ours"))
		v.run("discover")
		v.run("sync")
		events := v.glob("calendars/work/*.ics")
		if len(events) != 2 {
			t.Fatalf("events here after sync: %v", events)
		}
		cards := d.want(207, "both", "PROPFIND", card+"mine/", askAll, "Depth", "1").text
		if n := strings.Count(cards, ".vcf<"); n != 1 {
			t.Errorf("%d cards there after sync:\n%s", n, cards)
		}
		if err := os.Remove(filepath.Join(v.dir, events[0])); err != nil {
			t.Fatal(err)
		}
		v.run("sync")
		list := d.want(207, "both", "PROPFIND", cal+"work/", askAll, "Depth", "1").text
		if n := strings.Count(list, ".ics<"); n != 1 {
			t.Errorf("%d events there after one was deleted here:\n%s", n, list)
		}
	})
}

// TestVdirsyncerWithNarrowPasswords: a home that is empty for the password is no error, and nothing else than it opens comes.
func TestVdirsyncerWithNarrowPasswords(t *testing.T) {
	t.Parallel()
	for password, want := range map[string]string{
		"cal":  "calendars/private calendars/work",
		"work": "calendars/work",
		"card": "contacts/friends",
		"ro":   "calendars/private calendars/work contacts/friends",
	} {
		t.Run(password, func(t *testing.T) {
			t.Parallel()
			b := testlab.Radicale(t)
			d := open(t, routes{"calendar": to(b), "contacts": to(b)})
			b.MakeCalendar(testlab.Alice, "private")
			b.Put(testlab.Alice, b.MakeCalendar(testlab.Alice, "work")+"1.ics", testlab.Event("1"))
			b.Put(testlab.Alice, b.MakeAddressBook(testlab.Alice, "friends")+"1.vcf", testlab.Card("1"))
			v := newVdirsyncer(t, d, password)
			v.run("discover")
			v.run("sync")
			if got := strings.Join(v.glob("c*s/*"), " "); got != want {
				t.Errorf("collections here after sync: %s, want %s", got, want)
			}
			if got := len(v.glob("c*s/*/*")); got != strings.Count(want, "work")+strings.Count(want, "friends") {
				t.Errorf("%d events and cards here after sync", got)
			}
		})
	}
}

const khalConfig = `[calendars]
[[work]]
path = @DIR@/calendars/work
type = calendar
[locale]
local_timezone = UTC
default_timezone = UTC
dateformat = %Y-%m-%d
longdateformat = %Y-%m-%d
timeformat = %H:%M
datetimeformat = %Y-%m-%d %H:%M
longdatetimeformat = %Y-%m-%d %H:%M
[sqlite]
path = @DIR@/khal.db
`

// TestKhal: what khal shows and makes lies in the folder that vdirsyncer keeps in step.
func TestKhal(t *testing.T) {
	t.Parallel()
	b := testlab.Radicale(t)
	d := open(t, routes{"calendar": to(b), "contacts": to(b)})
	b.Put(testlab.Alice, b.MakeCalendar(testlab.Alice, "work")+"1.ics", testlab.Event("1"))
	v := newVdirsyncer(t, d, "cal")
	v.run("discover")
	v.run("sync")
	v.write("khal", strings.ReplaceAll(khalConfig, "@DIR@", v.dir))
	khal := func(args ...string) string {
		t.Helper()
		return testlab.Run(t, testlab.Command(t, "khal", append([]string{"-c", filepath.Join(v.dir, "khal")}, args...)...))
	}
	if got := khal("list", "2026-01-01", "30d"); !strings.Contains(got, "2026-01-12") || !strings.Contains(got, "14:00-15:00 Grüße, Kaffee und 会議") {
		t.Errorf("khal list: %s", got)
	}
	khal("new", "-a", "work", "2026-02-03", "10:00", "11:00", "Zahnarzt")
	v.run("sync")
	if _, got := b.Do(testlab.Alice, "GET", b.Calendars(testlab.Alice)+"work/", ""); !strings.Contains(got, "SUMMARY:Zahnarzt") {
		t.Errorf("khal's event is not there:\n%s", got)
	}
}

const calcurseConfig = `[General]
Hostname = @HOST@
Path = @PATH@
DryRun = No
[Auth]
Username = alice@example.test
Password = @PASSWORD@
`

func TestCalcurse(t *testing.T) {
	t.Parallel()
	b := testlab.Radicale(t)
	d := open(t, routes{"calendar": to(b), "contacts": to(b)})
	b.Put(testlab.Alice, b.MakeCalendar(testlab.Alice, "work")+"1.ics", testlab.Event("1"))
	dir := t.TempDir()
	config := filepath.Join(dir, "config")
	fill := strings.NewReplacer("@HOST@", strings.TrimPrefix(d.url, "https://"), "@PATH@", cal+"work/", "@PASSWORD@", "work")
	if err := os.WriteFile(config, []byte(fill.Replace(calcurseConfig)), 0o600); err != nil {
		t.Fatal(err)
	}
	testlab.Need(t, "calcurse", "calcurse-caldav", "/usr/lib/python3*/dist-packages/httplib2/__init__.py")
	sync := func(args ...string) string {
		t.Helper()
		args = append([]string{"/usr/bin/calcurse-caldav", "--config", config, "--datadir", filepath.Join(dir, "data"), "--syncdb", filepath.Join(dir, "db"), "--lockfile", filepath.Join(dir, "lock")}, args...)
		cmd := testlab.Command(t, "/usr/bin/python3", args...)
		cmd.Env = append(cmd.Env, "HTTPLIB2_CA_CERTS="+d.ca.File)
		return testlab.Run(t, cmd)
	}
	calcurse := func(args ...string) string {
		t.Helper()
		return testlab.Run(t, testlab.Command(t, "calcurse", append([]string{"-D", filepath.Join(dir, "data")}, args...)...))
	}
	if got := sync("--init", "keep-remote"); !strings.Contains(got, "1 items imported") {
		t.Errorf("the first sync: %s", got)
	}
	if got := calcurse("-Q", "--from", "01/12/2026"); !strings.Contains(got, "Grüße, Kaffee und 会議") {
		t.Errorf("calcurse shows: %s", got)
	}
	own := filepath.Join(dir, "own.ics")
	if err := os.WriteFile(own, []byte(strings.Replace(testlab.Todo("2"), "Fenster putzen", "Einkaufen", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	calcurse("-q", "-i", own)
	if got := sync(); !strings.Contains(got, "1 items exported, 0 items removed") {
		t.Errorf("the second sync: %s", got)
	}
	if _, got := b.Do(testlab.Alice, "GET", b.Calendars(testlab.Alice)+"work/", ""); !strings.Contains(got, "SUMMARY:Einkaufen") || !strings.Contains(got, "SUMMARY:Gr") {
		t.Errorf("what is there after the second sync:\n%s", got)
	}
	d.want(200, "both", "DELETE", cal+"work/1.ics", "")
	calcurse("-F", "--filter-type", "cal") // keeps no to-dos
	if got := sync(); !strings.Contains(got, "0 items imported, 1 items removed locally") || !strings.Contains(got, "0 items exported, 1 items removed from the server") {
		t.Errorf("the third sync: %s", got)
	}
	if _, got := b.Do(testlab.Alice, "GET", b.Calendars(testlab.Alice)+"work/", ""); strings.Contains(got, "SUMMARY") {
		t.Errorf("what is there after the third sync:\n%s", got)
	}
}
