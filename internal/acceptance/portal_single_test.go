package acceptance

import (
	"net/http"
	"strings"
	"testing"

	"postern/internal/testlab"
)

// titled makes a calendar as apps do: by a random name, with the title in a property.
func titled(t *testing.T, r *testlab.DAVServer, user, name, title string) {
	t.Helper()
	body := `<C:mkcalendar xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><set><prop><displayname>` + title + `</displayname></prop></set></C:mkcalendar>`
	if status, answer := r.Do(user, "MKCALENDAR", "/"+user+"/"+name+"/", body); status != http.StatusCreated {
		t.Fatalf("MKCALENDAR = %d %s", status, answer)
	}
	r.Put(user, "/"+user+"/"+name+"/x.ics", testlab.Event("x"))
}

// Somebody chooses one calendar of a real server in a real browser: the app password opens that one, the address books that stay whole, and
// nothing else; and pages call it by its title, also where the server is gone.
func TestPortalSingleCalendar(t *testing.T) {
	t.Parallel()
	const work, private = "3f2a9c1e-77b0-4c55-9d1f-0b7f6f7e2a10", "b5d0c6f2-2f1e-4f0a-8f59-6a9d0c1b2e3f"
	s, radicale := newSite(t), testlab.Radicale(t)
	titled(t, radicale, alice, work, "Work &amp; travel")
	titled(t, radicale, alice, private, "Private")
	titled(t, radicale, bob, "bobs", "Of Bob")
	radicale.MakeAddressBook(alice, "friends")
	radicale.Put(alice, "/"+alice+"/friends/enzo.vcf", testlab.Card("enzo"))
	s.backend = davBackend("radicale", radicale.URL)
	p := openPortal(t, s, "")
	a := p.person(t, alice)

	a.open("/passwords/new").HasNoText("Work & travel").Click("Only some calendars or address books").HasText("Work & travel", "Private", "friends").HasNoText("Of Bob", work)
	a.look("new-single")
	a.Tick("Calendars and contacts").Tick("Work & travel").Fill("Which app or device is it for?", "Office").Click("Make app password").HasText("Your new app password", "Calendar: Work & travel")
	a.look("made-single")
	secret := a.secret()
	id := p.publicID(p.gateway)
	propfind := func(path string) string {
		t.Helper()
		code, text, _ := p.do(p.gateway, alice, secret, "PROPFIND", path, `<propfind xmlns="DAV:"><prop><displayname/><resourcetype/></prop></propfind>`, "Depth", "1")
		if code != http.StatusMultiStatus {
			t.Fatalf("PROPFIND %s = %d %s", path, code, text)
		}
		return text
	}
	if text := propfind("/dav/cal/" + id + "/"); !strings.Contains(text, work) || !strings.Contains(text, "Work &amp; travel") || strings.Contains(text, private) || strings.Contains(text, "Private") {
		t.Errorf("the home holds\n%s", text)
	}
	if text := propfind("/dav/card/" + id + "/"); !strings.Contains(text, "friends") {
		t.Errorf("the address books are\n%s", text)
	}
	for path, want := range map[string]int{"/dav/cal/" + id + "/" + work + "/x.ics": 200, "/dav/cal/" + id + "/" + private + "/x.ics": 404, "/dav/card/" + id + "/friends/enzo.vcf": 200} {
		if code, text, _ := p.do(p.gateway, alice, secret, "GET", path, ""); code != want {
			t.Errorf("GET %s = %d, want %d: %s", path, code, want, text)
		}
	}

	// Without script, in German, on a phone.
	b := a.elsewhere()
	b.WithoutScript().Phone()
	b.signIn()
	b.open("/passwords").Click("Deutsch").HasText("App-Passwörter", "Kalender: Work & travel")
	b.open("/passwords/new").Fill("Für welche App oder welches Gerät ist es?", "Telefon").Tick("Kalender, nur lesen").Click("Nur einzelne Kalender oder Adressbücher").FitsWidth()
	b.Tick("Private").Click("App-Passwort erstellen").HasText("aber „Alle Kalender“ ist gewählt").FitsWidth().Screenshot("single-de-refused")
	b.Tick("Nur diese Kalender:").Click("App-Passwort erstellen").HasText("Kalender: Private (nur lesen)").FitsWidth()
	b.open("/passwords").Click("English")

	// The server hangs, then it is gone: the page says so, app passwords are made all the same, and shown by their titles.
	list := "Your calendars can't be listed at the moment."
	radicale.Pause()
	a.open("/passwords/new").Click("Only some calendars or address books").HasText(list, "Your address books can't be listed")
	radicale.Resume()
	a.open("/passwords/new").Click("Only some calendars or address books").Tick("Calendars").Tick("Private").Fill("Which app or device is it for?", "Late")
	radicale.Stop()
	a.Click("Make app password").HasText("It can't be checked at the moment which calendars are yours.")
	a.Tick("All calendars").Click("Make app password").HasText("Your new app password", "Opens: Calendars")
	a.open("/passwords").HasText("Calendar: Work & travel", "Calendar: Private (read only)")
	radicale.Start()
	a.open("/passwords/new").Click("Only some calendars or address books").HasText("Work & travel").HasNoText(list)
	p.Terminate()
}
