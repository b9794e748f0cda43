package notice

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"github.com/wneessen/go-mail"

	"postern/authstore"
	"postern/gateway/place"
	"postern/gateway/texts"
)

// message writes the mail. It is plain text only: it reads the same everywhere, nothing in it can be other than it looks, and a mail about
// security that is full of pictures and buttons teaches people to press buttons in mails.
func (s *Sender) message(n *authstore.Notice) (*mail.Msg, error) {
	p := texts.In(n.Language)
	at := n.At.In(zone(n.Zone))
	m := mail.NewMsg(mail.WithEncoding(mail.EncodingQP), mail.WithCharset(mail.CharsetUTF8), mail.WithNoDefaultUserAgent())
	m.FromMailAddress(s.from)
	if err := m.To(n.Address); err != nil {
		return nil, err
	}
	m.Subject(subject(p, n))
	m.SetDateWithValue(at)
	// The time is in it because a database that is restored from a backup gives the numbers of events again.
	m.SetMessageIDWithValue(fmt.Sprintf("%d.%d.%s@%s", n.ID, n.At.Unix(), strings.ToLower(s.o.Epoch), s.host))
	m.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834 section 5: nobody answers that he is on holiday
	m.SetGenHeader("Content-Language", p.Tag.String())
	m.SetBodyString(mail.TypeTextPlain, s.body(p, n, at))
	return m, nil
}

// zone is UTC for a name that is unknown.
func zone(name string) *time.Location {
	if loc, err := time.LoadLocation(name); err == nil && name != "Local" {
		return loc
	}
	return time.UTC
}

// textKey is where an event's texts stand.
func textKey(kind string) string { return "notice." + strings.ReplaceAll(kind, ".", "_") }

const (
	maxSubject = 60  // of what somebody else wrote in the subject, in runes
	maxQuoted  = 200 // and in the text
)

// quoted is what somebody else wrote, in one printable line that is cut short, and nothing that a mail program makes a link of.
func quoted(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "..."
	}
	text = strings.NewReplacer("://", ": //", "=?", "= ?").Replace(clean(text))
	return domain.ReplaceAllString(text, " .$1")
}

// domain finds a dot before a letter: mail programs make links of whatever looks like a host's name. A version has a digit there.
var domain = regexp.MustCompile(`\.(\pL)`)

// subject names the app password, whose label people chose themselves. go-mail encodes what is not ASCII (RFC 2047).
func subject(p *texts.Printer, n *authstore.Notice) string {
	if n.Password == 0 {
		return p.Say(textKey(n.Kind) + ".subject")
	}
	return p.Say(textKey(n.Kind)+".subject", quoted(n.Label, maxSubject))
}

func (s *Sender) body(p *texts.Printer, n *authstore.Notice, at time.Time) string {
	key := textKey(n.Kind)
	what, mine := p.Say(key+".what"), p.Say("notice.mine")
	facts := []string{p.Say("notice.when", when(p, at, n.Zone))}
	fact := func(key, value string) {
		if value != "" {
			facts = append(facts, p.Say("notice."+key, value))
		}
	}
	if n.Password != 0 {
		fact("app_password", quoted(n.Label, maxQuoted))
		fact("opens", opens(p, n))
	}
	byAdministrator := n.Actor.Administers()
	switch n.Kind {
	case authstore.KindNewUse:
		u, err := authstore.ParseNewUse(n.Detail)
		if err != nil {
			s.o.Log.Error("an event's detail can't be read", "event", n.ID, "err", err) // ours, so this is a defect
		}
		which := "both"
		switch {
		case !u.NewOperator:
			which = "app"
		case !u.NewApp:
			which = "network"
		}
		what, mine = p.Say(key+"."+which), p.Say(key+".mine")
		fact("app", quoted(u.App, maxQuoted))
		fact("protocol", cmp.Or(protocols[u.Protocol], quoted(u.Protocol, maxQuoted)))
		fact("network", s.network(p, u))
	case authstore.KindIdle:
		w, err := authstore.ParseIdleWarning(n.Detail)
		if err != nil {
			s.o.Log.Error("an event's detail can't be read", "event", n.ID, "err", err) // ours, so this is a defect
		}
		fact("ends", when(p, w.Ends.In(zone(n.Zone)), n.Zone))
		mine = p.Say(key + ".mine")
	case authstore.KindYearly:
		facts = s.yearly(p, n)
		mine = p.Say(key + ".mine")
	case "password.revoked", "password.revoked_all":
		if n.Actor.Name == "policy" {
			what, mine = p.Say("notice.idle_ended.what"), p.Say("notice.idle_ended.mine")
		}
		if byAdministrator { // what the portal notes there is no reason, and in no language of the person's
			fact("reason", quoted(n.Detail, maxQuoted))
		}
	case authstore.KindConnectionFailed:
		mine = p.Say(key + ".mine")
	case "factor.added", "factor.removed":
		fact("factor", quoted(n.Detail, maxQuoted))
	}
	if address, ok := strings.CutPrefix(n.Actor.Name, "admin:"); ok {
		facts = append(facts, p.Say("notice.by_address", address))
		if n.Kind == "password.created" {
			facts = append(facts, p.Say("notice.seen"))
		}
	} else if byAdministrator {
		facts = append(facts, p.Say("notice.by_administrator"))
	}
	if n.Actor.Client.IsValid() {
		fact("from", s.where(p, n.Actor.Client.String(), n.Actor.Client, s.o.Places.Operator(n.Actor.Client)))
		fact("browser", p.Browser(n.Actor.Agent))
	}
	parts := []string{what, strings.Join(facts, "\n")}
	switch {
	case n.Actor.Name == "policy": // nobody did it
		parts = append(parts, mine)
	case byAdministrator:
		parts = append(parts, p.Say("notice.not_expected"))
	default:
		parts = append(parts, mine, p.Say(key+".not_mine"))
	}
	if n.Kind == "invitation.made" || n.Kind == "factors.reset" { // which lets somebody else in, if it was not asked for
		parts = append(parts[:2], p.Say(key+".not_mine"))
	}
	if s.o.Site != "" {
		parts = append(parts, p.Say("notice.site", s.o.Site))
	}
	return strings.Join(append(parts, "-- \n"+p.Say("notice.footer", n.Address)), "\n\n") + "\n"
}

// yearly lists the app passwords of an account, a line each.
func (s *Sender) yearly(p *texts.Printer, n *authstore.Notice) (lines []string) {
	list, err := authstore.ParseYearly(n.Detail)
	if err != nil {
		s.o.Log.Error("an event's detail can't be read", "event", n.ID, "err", err)
	}
	for _, e := range list {
		used := p.Say("notice.never_used")
		if !e.Last.IsZero() {
			used = p.Say("notice.last_used", p.Time(e.Last.In(zone(n.Zone))))
		}
		lines = append(lines, "- "+quoted(e.Label, maxQuoted)+": "+opens(p, &authstore.Notice{Scopes: e.Scopes})+"; "+used)
	}
	return lines
}

// protocols are called so in every language.
var protocols = map[string]string{"imap": "IMAP", "submission": "SMTP", "pop3": "POP3", "managesieve": "ManageSieve", "dav": "CalDAV, CardDAV"}

// when names the zone too, by which people know it better than by its abbreviation.
func when(p *texts.Printer, at time.Time, zone string) string {
	if at.Location() == time.UTC {
		return p.Time(at)
	}
	return p.Time(at) + " (" + zone + ")"
}

// opens says what an app password opens. What calendars are called somebody else may have written.
func opens(p *texts.Printer, n *authstore.Notice) string {
	var parts []string
	for _, one := range p.Opens(n.Scopes, n.Collections, n.Titles) {
		for i, title := range one.Titles {
			one.Titles[i] = quoted(title, maxQuoted)
		}
		parts = append(parts, one.String())
	}
	return strings.Join(parts, "; ")
}

// network tells what is known of where an app password was used.
func (s *Sender) network(p *texts.Printer, u authstore.NewUse) string {
	if !u.Network.IsValid() || u.Network.Bits() == 0 {
		return ""
	}
	return s.where(p, u.Network.String(), u.Network.Addr(), authstore.KnownOperator(u.Operator))
}

func (s *Sender) where(p *texts.Printer, address string, a netip.Addr, operator string) string {
	for _, more := range []string{place.CountryName(s.o.Places.Country(a), p.Tag), quoted(operator, maxQuoted)} {
		if more != "" {
			address += ", " + more
		}
	}
	return address
}
