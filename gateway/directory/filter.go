package directory

import (
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// fill puts a name into a filter. Nothing in it can be more than a value (RFC 4515 section 3).
func fill(filter, address string) string {
	local, domain, _ := strings.Cut(address, "@")
	return strings.NewReplacer("{address}", ldap.EscapeFilter(address), "{local}", ldap.EscapeFilter(local), "{domain}", ldap.EscapeFilter(domain)).Replace(filter)
}

// anybody makes a filter fit whoever could be found by it under some name.
func anybody(filter string) string {
	return strings.NewReplacer("{address}", "*", "{local}", "*", "{domain}", "*").Replace(filter)
}

// enabled is a filter that fits what all of some do, and no one who is disabled.
func (d *Directory) enabled(filters ...string) string {
	f := "(&" + strings.Join(filters, "")
	if d.o.Disabled != "" {
		f += "(!" + d.o.Disabled + ")"
	}
	return f + ")"
}

// subjectFilter fits the entries with some subjects.
func (d *Directory) subjectFilter(subjects ...string) string {
	var b strings.Builder
	b.WriteString("(|")
	for _, s := range subjects {
		b.WriteString("(" + d.o.Subject + "=" + d.subjectValue(s) + ")")
	}
	b.WriteString(")")
	return b.String()
}
