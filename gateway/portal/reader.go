package portal

import (
	_ "embed"
	"errors"
	"regexp"
	"slices"
	"strings"
	_ "time/tzdata" // a container may have none, and all times would be UTC's

	"golang.org/x/text/language"
	"golang.org/x/text/language/display"

	"postern/authstore/identity"
	"postern/gateway/texts"
)

// zoneList is the zones of the tz database's zone1970.tab: each place on earth has one whose clock has gone like its own since 1970.
//
//go:embed zones.txt
var zoneList string

// region is the zones of a continent.
type region struct {
	Name  string
	Zones []zone
}

type zone struct{ Name, City string }

// regions lists the zones, with the one that is chosen: a browser may know others, such as Asia/Calcutta.
func regions(chosen string) []region {
	names := strings.Fields(zoneList)
	if !slices.Contains(names, chosen) {
		names = append(names, chosen)
		slices.Sort(names)
	}
	var list []region
	for _, name := range names {
		continent, city, ok := strings.Cut(name, "/")
		if !ok {
			continent, city = "UTC", name
		}
		if n := len(list); n == 0 || list[n-1].Name != continent {
			list = append(list, region{Name: continent})
		}
		last := &list[len(list)-1]
		last.Zones = append(last.Zones, zone{name, strings.ReplaceAll(city, "_", " ")})
	}
	return list
}

// tongue is a language that pages can be read in.
type tongue struct{ Tag, Name string }

func tongues() []tongue {
	var list []tongue
	for _, tag := range texts.Languages() {
		list = append(list, tongue{tag.String(), display.Self.Name(tag)})
	}
	return list
}

// languageTag is the tag of a language that is here; empty: there is no such.
func languageTag(asked string) string {
	tag, err := language.Parse(asked)
	if len(asked) > 35 || err != nil || !slices.Contains(texts.Languages(), tag) {
		return ""
	}
	return tag.String()
}

// local is a path of a page of ours: nothing that a browser could read as another host.
var local = regexp.MustCompile(`^/([A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*)?$`)

// language is chosen at the foot of a page, and of the account from then on.
func (s *Server) language(v *visit) error {
	if tag := languageTag(v.field("language")); tag != "" {
		v.setCookie(languageCookie, tag, int(yearLong.Seconds()))
		if v.session.Stage == identity.SignedIn {
			if err := s.o.People.SetPreferences(v.r.Context(), v.session, tag, v.session.Zone); err != nil {
				return err
			}
		}
	}
	back := v.field("back")
	if !local.MatchString(back) {
		back = "/"
	}
	if to := v.wanted(); to != "" {
		return carrying(seeOther(back), to)
	}
	return seeOther(back)
}

// reader notes the language and the zone of the security page.
func (s *Server) reader(v *visit) error {
	tag := languageTag(v.field("language"))
	err := s.o.People.SetPreferences(v.r.Context(), v.session, tag, v.field("zone"))
	if errors.Is(err, identity.ErrPreference) {
		return seeOther("/security?done=reader_unknown")
	}
	if err != nil {
		return err
	}
	if tag == "" {
		v.setCookie(languageCookie, "", -1)
	} else {
		v.setCookie(languageCookie, tag, int(yearLong.Seconds()))
	}
	return seeOther("/security?done=reader")
}
