package command

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"postern/gateway/view"
	"postern/internal/testlab"
)

// App passwords for single calendars and address books, with what a real Radicale has.
func TestOnly(t *testing.T) {
	t.Parallel()
	dav := testlab.Radicale(t)
	dav.MakeCalendar(testlab.Alice, "work")
	for path, title := range map[string]string{"4711": "Family &amp; friends", "twin1": "Twin", "twin2": "Twin"} {
		if status, answer := dav.Do(testlab.Alice, "MKCALENDAR", "/"+testlab.Alice+"/"+path+"/", `<C:mkcalendar xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><set><prop>`+
			`<displayname>`+title+`</displayname></prop></set></C:mkcalendar>`); status != 201 {
			t.Fatal(status, answer)
		}
	}
	dav.MakeAddressBook(testlab.Alice, "team")
	file := configured(t)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	led := strings.Replace(string(text), "protocol = \"dav\"\naddress = \"127.0.0.1:1\"", "protocol = \"dav\"\naddress = \""+strings.TrimPrefix(dav.URL, "http://")+"\"", 1)
	if err := os.WriteFile(file, []byte(led), 0o600); err != nil {
		t.Fatal(err)
	}
	postern := func(args ...string) (int, string, string) { return run(t, "", append(args, "-c", file)...) }
	must := func(args ...string) string {
		t.Helper()
		code, stdout, stderr := postern(args...)
		if code != 0 {
			t.Fatalf("postern %q: %d %s", args, code, stderr)
		}
		return stdout
	}
	create := func(args ...string) []string {
		return append([]string{"password", "create", testlab.Alice, "-l", "Watch"}, args...)
	}
	must("account", "add", testlab.Alice)
	must("account", "add", "nobody@example.test")

	if got, want := must("account", "collections", testlab.Alice),
		"COLLECTION      TITLE\ncalendar/4711   Family & friends\ncalendar/twin1  Twin\ncalendar/twin2  Twin\ncalendar/work   work\ncontacts/team   team\n"; got != want {
		t.Errorf("collections:\n%s\nwant\n%s", got, want)
	}
	var listed []view.Collection
	if err := json.Unmarshal([]byte(must("account", "collections", testlab.Alice, "--json")), &listed); err != nil || len(listed) != 5 || listed[0] != (view.Collection{Kind: "calendar", Name: "4711", Title: "Family & friends"}) {
		t.Errorf("collections --json: %+v, %v", listed, err)
	}

	if out := must(create("--for", "everything", "--only", "calendar/work", "--only", "family & FRIENDS", "--only", "contacts/*")...); !strings.Contains(out, "contacts; only calendar/4711 (Family & friends), calendar/work, contacts/*). It is shown only now.") {
		t.Errorf("create:\n%s", out)
	}
	var made view.Password
	if err := json.Unmarshal([]byte(must(create("--for", "calendar-read", "--only", "Family & friends", "--json")...)), &made); err != nil ||
		len(made.Collections) != 1 || made.Collections[0] != (view.Collection{Kind: "calendar", Name: "4711", Title: "Family & friends"}) {
		t.Errorf("create --json: %+v, %v", made, err)
	}
	if out := must("password", "show", "1"); !strings.Contains(out, "\nonly       calendar/4711 (Family & friends), calendar/work, contacts/*\n") {
		t.Errorf("show:\n%s", out)
	}
	if out := must("password", "list", testlab.Alice); !strings.Contains(out, "calendar:read; only calendar/4711 (Family & friends) ") {
		t.Errorf("list:\n%s", out)
	}
	if out := must("account", "show", testlab.Alice); !strings.Contains(out, "Watch (only calendar/4711)") {
		t.Errorf("the history:\n%s", out)
	}
	must(create("--for", "dav", "--only", "calendar/*", "--only", "contacts/*")...) // which is all
	if out := must("password", "show", "3"); !strings.Contains(out, "\nonly       -\n") {
		t.Errorf("show of one for all:\n%s", out)
	}
	must(create("--for", "dav", "--only", "work", "--only", "Team")...)
	if out := must("password", "show", "4", "--json"); !strings.Contains(out, `"name": "team"`) || !strings.Contains(out, `"name": "work"`) {
		t.Errorf("show --json:\n%s", out)
	}

	if out := must("account", "collections", "nobody@example.test"); out != "nobody@example.test has no calendar and no address book yet; an app whose password opens all can make one\n" {
		t.Errorf("collections where there are none: %q", out)
	}

	for name, tt := range map[string]struct {
		args []string
		code int
		want string
	}{
		"a slip":             {create("--for", "calendar", "--only", "calendar/wrok"), 1, "alice@example.test has no calendar or address book \"calendar/wrok\"; there are:\n  COLLECTION      TITLE\n  calendar/4711   Family & friends\n"},
		"another's title":    {create("--for", "contacts", "--only", "Twin"), 1, "there are:\n  COLLECTION     TITLE\n  contacts/team  team"},
		"two of that title":  {create("--for", "calendar", "--only", "Twin"), 1, "name one of them as it stands here:\n  COLLECTION      TITLE\n  calendar/twin1  Twin\n  calendar/twin2  Twin"},
		"a kind is missing":  {create("--for", "everything", "--only", "calendar/work"), 2, "add contacts/* for all of that kind"},
		"another kind":       {create("--for", "calendar", "--only", "contacts/team"), 2, "opens nothing of the kind contacts"},
		"a list":             {create("--for", "calendar", "--only", "calendar/work,calendar/4711"), 1, "(each takes an --only of its own); there are:"},
		"invitations alone":  {create("--scopes", "schedule"), 2, "add calendar"},
		"both":               {create("--for", "calendar", "--scopes", "mail"), 2, "leave one"},
		"mail":               {create("--for", "mail", "--only", "calendar/work"), 2, "--only is for what opens calendars or contacts"},
		"nothing there":      {[]string{"password", "create", "nobody@example.test", "-l", "x", "--for", "calendar", "--only", "work"}, 1, "none of its kind at all; an app whose password opens all can make one"},
		"nobody's":           {[]string{"account", "collections", "eve@example.test"}, 1, "there is no account"},
		"control characters": {create("--for", "calendar", "--only", "a\x1bb"), 1, "has no calendar or address book \"a?b\""},
	} {
		if code, stdout, stderr := postern(tt.args...); code != tt.code || stdout != "" || !strings.Contains(stderr, tt.want) {
			t.Errorf("%s: %d %q\n%s\nwant %d %s", name, code, stdout, stderr, tt.code, tt.want)
		}
	}
	dav.Stop()
	for _, args := range [][]string{{"account", "collections", testlab.Alice}, create("--for", "calendar", "--only", "calendar/work"), create("--for", "calendar", "--only", "work")} {
		if code, stdout, stderr := postern(args...); code != 1 || stdout != "" || !strings.Contains(stderr, "the calendars of alice@example.test can't be listed: backend radicale: ") || !strings.Contains(stderr, "nobody listens there") {
			t.Errorf("postern %q without the backend: %d %q %s", args, code, stdout, stderr)
		}
	}
	must(create("--for", "dav", "--only", "calendar/*", "--only", "contacts/*")...) // for which nobody need be asked
	if err := os.WriteFile(file, text[:strings.Index(string(text), "[[backend]]\nname = \"radicale\"")], 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := postern("account", "collections", testlab.Alice); code != 1 || !strings.Contains(stderr, `no backend has calendars of alice@example.test; write a [[route]] with protocol = "calendar"`) {
		t.Errorf("without a backend: %d %s", code, stderr)
	}
}
