package davproxy_test

import (
	"maps"
	"strings"
	"testing"

	"postern/internal/testlab"
)

// tsdavSteps are what tsdav shows of all calendars and address books. Its words are JSON.
var tsdavSteps = map[string]string{
	"calendars":       `["private","work"]`,
	"make a calendar": `201`,
	"new calendars":   `[["made"],[]]`,
	"in a time":       `["1.ics"]`,
	"address books":   `["friends"]`,
}

// tsdavLife is what tsdav shows of an object's life, and tsdavReading where it may only read.
var (
	tsdavLife = map[string]string{
		"there": `["1.KIND"]`, "made": `201`, "made again": `412`, "synced": `[["ts.KIND"],[],[]]`, "changed over another version": `412`, "changed": `true`,
		"read": `true`, "deleted over another version": `412`, "deleted": `true`, "left": `["1.KIND"]`,
	}
	tsdavReading = map[string]string{
		"there": `["1.KIND"]`, "made": `403`, "made again": `403`, "synced": `[[],[],[]]`, "changed over another version": `403`, "changed": `false`,
		"read": `undefined`, "deleted over another version": `403`, "deleted": `false`, "left": `["1.KIND"]`,
	}
)

func TestTSDAV(t *testing.T) {
	t.Parallel()
	for server, passwords := range map[string][]string{"radicale": {"ro", "work", "cal", "both"}, "cyrus": {"ro", "both"}} {
		t.Run(server, func(t *testing.T) {
			t.Parallel()
			library := testlab.TSDAV(t)
			lab := starts[server](t)
			d := open(t, routes{"calendar": lab.route, "contacts": lab.route})
			lab.MakeCalendar(testlab.Alice, "private")
			lab.Put(testlab.Alice, lab.MakeCalendar(testlab.Alice, "work")+"1.ics", testlab.Event("1"))
			lab.Put(testlab.Alice, lab.MakeAddressBook(testlab.Alice, "friends")+"1.vcf", testlab.Card("1"))
			for _, password := range passwords {
				want, lives, kinds := maps.Clone(tsdavSteps), tsdavLife, []string{"ics", "vcf"}
				if server == "cyrus" { // it makes one
					want["address books"] = `["Default","friends"]`
				}
				switch password {
				case "ro":
					lives = tsdavReading
					maps.Copy(want, map[string]string{"make a calendar": `403`, "new calendars": `[[],[]]`})
				case "work":
					kinds = kinds[:1]
					maps.Copy(want, map[string]string{"calendars": `["work"]`, "make a calendar": `403`, "new calendars": `[[],[]]`, "address books": `[]`})
				case "cal":
					kinds = kinds[:1]
					want["address books"] = `[]`
				}
				for _, kind := range kinds {
					for step, value := range lives {
						want[kind+": "+step] = strings.ReplaceAll(value, "KIND", kind)
					}
				}
				cmd := testlab.Command(t, "node", "testdata/tsdav.mjs", library, d.url, testlab.Alice, password)
				cmd.Env = append(cmd.Env, "NODE_EXTRA_CA_CERTS="+d.ca.File)
				got := stepsOf(t, cmd)
				delete(got, "reports") // the backend's
				if !maps.Equal(got, want) {
					t.Errorf("with %q:\ngot  %v\nwant %v", password, got, want)
				}
				d.do("both", "DELETE", cal+"made/", "") // for the next password
			}
		})
	}
}
