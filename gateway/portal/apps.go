package portal

import (
	"slices"
	"strconv"
	"strings"

	"postern/authstore"
	"postern/gateway/appsettings"
)

const (
	reads    = authstore.ScopeMail | authstore.ScopeMailRead
	mail     = reads | authstore.ScopeSubmit | authstore.ScopePOP
	calendar = authstore.ScopeCalendar | authstore.ScopeCalendarRead
	contacts = authstore.ScopeContacts | authstore.ScopeContactsRead
	dav      = calendar | contacts
)

// appNames are the apps that the portal explains; "other" is any.
var appNames = []string{"thunderbird", "outlook", "apple", "davx5", "other"}

// uses says what an app can do anything with.
var uses = map[string]authstore.Scopes{
	"thunderbird": mail | dav,
	"outlook":     mail,
	"apple":       mail | dav,
	"davx5":       dav,
	"other":       ^authstore.Scopes(0),
}

func fits(app string, s authstore.Scopes) bool { return uses[app].Any(s) }

// appHelp tells what to do in one app.
type appHelp struct {
	Name   string
	Open   bool
	Steps  []string
	Groups []settingsGroup
}

// settingsGroup is what is typed into one part of an app's form.
type settingsGroup struct {
	Title string
	Rows  []setting
}

// setting is one value. ID is its element's.
type setting struct{ ID, Name, Value string }

// appHelp tells what to do in the apps that can use an app password, the chosen one open.
func (v *visit) appHelp(chosen string, s authstore.Scopes) []appHelp {
	var list []appHelp
	settings := v.s.o.Settings(v.about().Address, s)
	for _, name := range appNames {
		if fits(name, s) {
			h := appHelp{Name: name, Open: name == chosen, Steps: v.steps(name, s, settings)}
			h.Groups = v.groups(name, s&uses[name], settings)
			list = append(list, h)
		}
	}
	return list
}

// steps are the sentences of an app's part of the catalogue, those that the app password opens something for.
func (v *visit) steps(app string, s authstore.Scopes, settings appsettings.Settings) []string {
	var list []string
	for _, step := range []struct {
		key  string
		when bool
	}{{"mail", s.Any(mail)}, {"send", s == authstore.ScopeSubmit}, {"calendar", s.Any(calendar)}, {"contacts", s.Any(contacts)}, {"dav", s.Any(dav)}, {"last", true}} {
		if key := "setup." + app + "." + step.key; step.when && v.text.Has(key) {
			list = append(list, v.text.Say(key))
		}
	}
	return list
}

// groups are the values for an app, in the order of its form.
func (v *visit) groups(app string, s authstore.Scopes, settings appsettings.Settings) []settingsGroup {
	var list []settingsGroup
	add := func(title string, rows ...setting) {
		title = v.text.Say("settings." + title)
		if n := len(list); n > 0 && strings.HasSuffix(list[n-1].Title, title) { // another way to the same
			title = v.text.Say("settings.or", title)
		}
		for i := range rows {
			rows[i].ID = app + "-" + strconv.Itoa(len(list)) + "-" + strconv.Itoa(i)
		}
		list = append(list, settingsGroup{title, rows})
	}
	add("account", setting{Name: v.text.Say("settings.user"), Value: settings.UserName})
	for _, way := range []struct {
		title string
		ports []appsettings.Port
		when  bool
	}{
		{"imap", settings.IMAP, s.Any(reads)},
		{"pop3", settings.POP3, s.Any(authstore.ScopePOP)},
		{"submission", settings.Submission, s.Any(authstore.ScopeSubmit)},
		{"managesieve", settings.Sieve, app == "other"},
	} {
		if len(way.ports) == 0 || !way.when {
			continue
		}
		for _, p := range choosePorts(app, way.ports) {
			add(way.title, setting{Name: v.text.Say("settings.server"), Value: settings.Server}, setting{Name: v.text.Say("settings.port"), Value: p.Number},
				setting{Name: v.text.Say("settings.security"), Value: v.security(p.Security)})
		}
	}
	if settings.DAV != "" && s.Any(dav) {
		add("dav", setting{Name: v.text.Say("settings.url"), Value: settings.DAV})
	}
	return list
}

// choosePorts takes the way with TLS from the first byte, which no app gets wrong, for an app that is explained. For others it takes all of
// them, that one first.
func choosePorts(app string, ports []appsettings.Port) []appsettings.Port {
	implicit := func(p appsettings.Port) int {
		if p.Security == appsettings.TLS {
			return 0
		}
		return 1
	}
	ports = slices.SortedStableFunc(slices.Values(ports), func(a, b appsettings.Port) int { return implicit(a) - implicit(b) })
	if app == "other" {
		return ports
	}
	return ports[:1]
}

// security names an encryption as apps do.
func (v *visit) security(s appsettings.Security) string {
	switch s {
	case appsettings.TLS:
		return "SSL/TLS"
	case appsettings.STARTTLS:
		return "STARTTLS"
	}
	return v.text.Say("settings.none")
}
