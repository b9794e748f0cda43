package portal

import (
	"net/netip"
	"strings"
	"time"

	"postern/authstore"
	"postern/gateway/place"
	"postern/gateway/texts"
)

// opens says what an app password opens.
func (v *visit) opens(p authstore.AppPassword) []texts.Opened {
	return v.text.Opens(p.Scopes, p.Collections, p.Titles)
}

// protocol says what an app does with a protocol.
func (v *visit) protocol(name string) string {
	if key := "protocol." + name; v.text.Has(key) {
		return v.text.Say(key)
	}
	return name
}

// country names an address's country; empty: it is not known.
func (v *visit) country(a netip.Addr) string {
	if v.s.o.Places == nil || !a.IsValid() {
		return ""
	}
	code := v.s.o.Places.Country(a)
	if code == "" {
		return ""
	}
	return place.CountryName(code, v.text.Tag)
}

// place says where an address is, as far as that is known; empty for none.
func (v *visit) place(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	if c := v.country(a); c != "" {
		return a.String() + ", " + c
	}
	return a.String()
}

// network says where a network is: its addresses, who runs it, the country, as far as that is known.
func (v *visit) network(n netip.Prefix, o string) string {
	if !n.IsValid() || n.Bits() == 0 {
		return v.text.Say("words.here")
	}
	words := []string{networkText(n)}
	if name := operator(o); name != "" {
		words = append(words, name)
	}
	if c := v.country(n.Addr()); c != "" {
		words = append(words, c)
	}
	return strings.Join(words, ", ")
}

// operator is who runs a network, by name; empty: that is not known.
func operator(o string) string {
	o = authstore.KnownOperator(o)
	if number, name, ok := strings.Cut(o, " "); ok && strings.HasPrefix(number, "AS") {
		return name
	}
	return o
}

// networkText writes a network as people type it: a single address without its length.
func networkText(n netip.Prefix) string {
	if n.IsSingleIP() {
		return n.Addr().String()
	}
	return n.String()
}

// The methods below are for templates.

// Opens says what an app password opens.
func (p view) Opens(a authstore.AppPassword) []texts.Opened { return p.v.opens(a) }

// Box says what is allowed by ticking a scope.
func (p view) Box(scope string) string { return p.T("scope_box." + scope) }

// Does says what an app does with a protocol.
func (p view) Does(protocol string) string { return p.v.protocol(protocol) }

// Where says where a network is.
func (p view) Where(n netip.Prefix, o string) string { return p.v.network(n, o) }

// Place says where an address is.
func (p view) Place(a netip.Addr) string { return p.v.place(a) }

// App is an app's name; one that tells none has a word that stands for it.
func (p view) App(name string) string {
	if name == "" {
		return p.T("words.nameless")
	}
	return name
}

// Number writes a number as the reader's language does.
func (p view) Number(n int64) string { return p.T("words.number", n) }

// Network writes a network as people type it.
func (p view) Network(n netip.Prefix) string { return networkText(n) }

// UTCDay writes a day that is counted in UTC, whatever the reader's zone.
func (p view) UTCDay(t time.Time) string { return p.v.text.Day(t.UTC()) }
