package davproxy_test

import (
	"maps"
	"os/exec"
	"strings"
	"testing"

	"postern/authstore"
	"postern/internal/testlab"
	"postern/protocols"
)

// start is a backend, the way there, and the header by which Bob acts there without the front door.
type start struct {
	*testlab.DAVServer
	route func(authstore.Grant) *protocols.Route
	bob   string
}

func byName(b *testlab.DAVServer) start { return start{b, to(b), "X-Remote-User: " + testlab.Bob} }

// starts are servers of each make that are at hand.
var starts = map[string]func(testing.TB) start{
	"radicale": func(t testing.TB) start { return byName(testlab.Radicale(t)) },
	"xandikos": func(t testing.TB) start { return byName(testlab.Xandikos(t)) },
	"sabre":    func(t testing.TB) start { return byName(testlab.Sabre(t)) },
	"cyrus": func(t testing.TB) start {
		b := testlab.Cyrus(t)
		return start{b.DAVServer, toCyrus(b), "Authorization: Bearer " + b.Token(testlab.Bob)}
	},
}

// discovered is what python-caldav finds with any password.
var discovered = map[string]string{"principal": self, "home": cal, "addresses": "['mailto:" + testlab.Alice + "']"}

// seenBy is what python-caldav sees with some passwords where it does not see what it sees without the front door. It calls a 403 an AuthorizationError.
var seenBy = map[string]map[string]string{
	"both": {},
	"work": {
		"calendars": "['work']", "make a calendar": "AuthorizationError", "its name": "NotFoundError", "calendars at last": "['work']",
	},
	"calro": {
		"make a calendar": "AuthorizationError", "its name": "NotFoundError", "make an event": "AuthorizationError", "make a to-do": "AuthorizationError",
		"search": "['1.ics']", "expand": "['02-02', '02-09', '02-16', '02-23']", "to-dos": "[]", "change": "AuthorizationError", "multiget": "['1.ics']",
		"sync": "['1.ics']", "changes": "AuthorizationError", "rename": "PropsetError", "delete an event": "AuthorizationError", "what is left": "['1.ics']",
		"delete the calendar": "AuthorizationError",
	},
	"card": {
		"calendars": "[]", "make a calendar": "AuthorizationError", "its name": "NotFoundError", "what is there": "NotFoundError", "make an event": "PutError",
		"make a to-do": "PutError", "search": "NotFoundError", "expand": "NotFoundError", "to-dos": "NotFoundError", "change": "NotFoundError",
		"multiget": "NotFoundError", "sync": "NotFoundError", "changes": "NotFoundError", "busy": "NotFoundError", "rename": "NotFoundError",
		"delete an event": "NotFoundError", "what is left": "NotFoundError", "calendars at last": "[]",
	},
}

// TestPythonCalDAV: python-caldav does through the front door what it does without it, as far as its password goes.
func TestPythonCalDAV(t *testing.T) {
	t.Parallel()
	for server, passwords := range map[string][]string{
		"radicale": {"card", "calro", "both", "work"}, "cyrus": {"card", "calro", "both", "work"}, "sabre": {"both"}, "xandikos": {"both"},
	} {
		t.Run(server, func(t *testing.T) {
			t.Parallel()
			lab := starts[server](t)
			d := open(t, routes{"calendar": lab.route, "contacts": lab.route})
			for _, user := range []string{testlab.Alice, testlab.Bob} {
				lab.MakeCalendar(user, "private")
				lab.Put(user, lab.MakeCalendar(user, "work")+"1.ics", testlab.Event("1"))
			}
			direct := pythonCalDAV(t, lab.URL+lab.Principal(testlab.Bob), "work", lab.bob)
			if len(direct) == 0 || direct["what is left"] != "['py-event.ics', 'py-todo.ics']" {
				t.Fatalf("without the front door: %v", direct)
			}
			for _, password := range passwords {
				want := maps.Clone(direct)
				maps.Copy(want, discovered)
				maps.Copy(want, seenBy[password])
				got := pythonCalDAV(t, d.url+"/dav/", "work", "", d.ca.File, testlab.Alice, password)
				if password == "calro" { // other events
					want["busy"] = got["busy"]
				}
				for step := range want {
					if got[step] != want[step] {
						t.Errorf("with %q: %s: %s, want %s", password, step, got[step], want[step])
					}
				}
				d.do("both", "DELETE", cal+"work/py-event.ics", "") // for the next password
				d.do("both", "DELETE", cal+"work/py-todo.ics", "")
				d.do("both", "PUT", cal+"work/1.ics", testlab.Event("1"))
			}
		})
	}
}

// pythonCalDAV runs the script and returns its lines.
func pythonCalDAV(t *testing.T, args ...string) map[string]string {
	t.Helper()
	testlab.Need(t, "/usr/lib/python3*/dist-packages/caldav/davclient.py")
	return stepsOf(t, testlab.Command(t, "/usr/bin/python3", append([]string{"testdata/pycaldav.py"}, args...)...))
}

// stepsOf runs a script that prints a line for each step, its name, a tab, and what came of it. What else it prints is shown if the test fails.
func stepsOf(t *testing.T, cmd *exec.Cmd) map[string]string {
	t.Helper()
	out := testlab.Run(t, cmd)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s:\n%s", cmd.Args, out)
		}
	})
	got := make(map[string]string)
	for line := range strings.Lines(out) {
		if step, value, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok {
			got[step] = value
		}
	}
	return got
}
