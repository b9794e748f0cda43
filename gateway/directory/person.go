package directory

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-ldap/ldap/v3"

	"postern/authstore/identity"
)

// person is what an entry tells.
type person struct {
	dn        string
	subject   string // empty: not shown, or of no use
	addresses []string
	groups    []string
	changed   time.Time // zero: not shown
}

// The bounds of what is kept of an entry.
const (
	maxSubject   = 200
	maxAddresses = 50
	maxGroups    = 1000
	maxGroupText = 64 << 10 // of all of a person's, in bytes
)

// attributes are what is asked of an entry, for no more is anybody's business.
func (d *Directory) attributes() []string {
	var list []string
	for _, a := range []string{d.o.Subject, d.o.Address, d.o.Groups, d.o.Changed} {
		if a != "" {
			list = append(list, a)
		}
	}
	return list
}

func (d *Directory) read(e *ldap.Entry) *person {
	p := &person{dn: e.DN}
	if raw := values(e, d.o.Subject); len(raw) == 1 {
		p.subject = d.subjectText(raw[0])
	}
	for _, v := range values(e, d.o.Address) {
		if a, main := address(string(v)); main {
			p.addresses = slices.Insert(p.addresses, 0, a)
		} else if a != "" && len(p.addresses) < maxAddresses {
			p.addresses = append(p.addresses, a)
		}
	}
	if d.o.Groups != "" {
		for _, v := range values(e, d.o.Groups) {
			p.addGroup(string(v))
		}
	}
	if raw := values(e, d.o.Changed); len(raw) == 1 {
		p.changed = parseTime(string(raw[0]))
	}
	return p
}

// values finds an attribute's values whatever the case of its name, and without the options that servers add.
func values(e *ldap.Entry, name string) [][]byte {
	for _, a := range e.Attributes {
		if base, _, _ := strings.Cut(a.Name, ";"); name != "" && strings.EqualFold(base, name) {
			return a.ByteValues
		}
	}
	return nil
}

// address reads one value: an address, or a proxyAddress of Active Directory, whose main one says SMTP in capitals.
func address(v string) (address string, main bool) {
	if scheme, rest, ok := strings.Cut(v, ":"); ok {
		if !strings.EqualFold(scheme, "smtp") {
			return "", false
		}
		v, main = rest, scheme == "SMTP"
	}
	if !strings.Contains(v, "@") || len(v) > 320 || !utf8.ValidString(v) || strings.ContainsFunc(v, unicode.IsControl) {
		return "", false
	}
	return v, main
}

func (p *person) addGroup(g string) {
	size := len(g)
	for _, other := range p.groups {
		size += len(other)
	}
	if g != "" && utf8.ValidString(g) && !strings.ContainsFunc(g, unicode.IsControl) && len(p.groups) < maxGroups && size <= maxGroupText {
		p.groups = append(p.groups, g)
	}
}

// has reports whether an address is among the person's.
func (p *person) has(address string) bool {
	return slices.ContainsFunc(p.addresses, func(a string) bool { return strings.EqualFold(a, address) })
}

// claims is what the directory says of a person who typed an address.
func (p *person) claims(typed string) identity.Claims {
	c := identity.Claims{Issuer: Issuer, Subject: p.subject, Groups: p.groups, PrimaryChanged: p.changed}
	if p.has(typed) {
		c.Addresses = append(c.Addresses, typed)
	}
	for _, a := range p.addresses {
		if !strings.EqualFold(a, typed) {
			c.Addresses = append(c.Addresses, a)
		}
	}
	return c
}

// isGUID reports whether the subjects are Active Directory's GUIDs, in binary.
func (d *Directory) isGUID() bool {
	return strings.EqualFold(d.o.Subject, "objectGUID") || strings.EqualFold(d.o.Subject, "mS-DS-ConsistencyGuid")
}

// subjectText is a subject as it is kept; empty: it is none. A GUID is written as Windows does: its first three parts are little-endian
// ([MS-DTYP] section 2.3.4).
func (d *Directory) subjectText(raw []byte) string {
	if !d.isGUID() {
		s := strings.ToLower(string(raw))
		if len(raw) > maxSubject || !utf8.Valid(raw) || strings.ContainsFunc(s, unicode.IsControl) {
			return ""
		}
		return s
	}
	if len(raw) != 16 {
		return ""
	}
	b := swapped(raw)
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// swapped turns a GUID's binary form into the order of its text, and back.
func swapped(raw []byte) []byte {
	b := slices.Clone(raw)
	slices.Reverse(b[0:4])
	slices.Reverse(b[4:6])
	slices.Reverse(b[6:8])
	return b
}

// subjectValue is a subject as a filter has it.
func (d *Directory) subjectValue(subject string) string {
	if !d.isGUID() {
		return ldap.EscapeFilter(subject)
	}
	b, err := hex.DecodeString(strings.ReplaceAll(subject, "-", ""))
	if err != nil || len(b) != 16 {
		return ldap.EscapeFilter(subject) // which no GUID is
	}
	var value strings.Builder
	for _, c := range swapped(b) {
		fmt.Fprintf(&value, `\%02x`, c)
	}
	return value.String()
}

// The formats of GeneralizedTime (RFC 4517 section 3.3.13) that servers write.
var timeFormats = []string{"20060102150405Z", "20060102150405.999999999Z", "20060102150405-0700", "20060102150405.999999999-0700", "200601021504Z"}

// windowsEpoch is 1601 in seconds before 1970; a Windows file time counts tenths of microseconds since then.
const windowsEpoch = 11_644_473_600

// parseTime reads when a password was changed; zero: that can't be known. Active Directory's 0 says that it must be changed.
func parseTime(v string) time.Time {
	if n, err := strconv.ParseInt(v, 10, 64); err == nil && n > windowsEpoch*10_000_000 {
		return sane(time.Unix(n/10_000_000-windowsEpoch, 0))
	}
	for _, format := range timeFormats {
		if t, err := time.Parse(format, v); err == nil {
			return sane(t)
		}
	}
	return time.Time{}
}

// sane leaves out times that a wrong clock wrote: one from next year would hide all changes until then.
func sane(t time.Time) time.Time {
	if t.Unix() <= 0 || time.Until(t) > 24*time.Hour {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Second)
}
