package demo

import (
	"bytes"
	"embed"
	"encoding/base64"
	"fmt"
	"mime"
	"net/mail"
	"path"
	"strings"
	"text/template"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/emersion/go-imap/v2"
)

// The samples are templates, so that they are about this week and addressed to the account. Mails are whole messages;
// calendars and contacts are components with a blank line between them.
//
//go:embed samples
var sampleFiles embed.FS

// samples renders the files for one account.
type samples struct {
	Address  string
	Name     string // "Alice" of alice@example.test
	template *template.Template
}

func newSamples(address string) *samples {
	now := time.Now()
	monday := now.AddDate(0, 0, -(int(now.Weekday())+6)%7)
	return &samples{
		Address: address,
		Name:    firstName(address),
		template: template.New("").Funcs(template.FuncMap{
			// ago gives a header's date, so many hours ago
			"ago": func(hours int) string { return now.Add(-time.Duration(hours) * time.Hour).Format(time.RFC1123Z) },
			// on and at give a calendar's date, and with a time of day, counted in days from this week's Monday
			"on": func(days int) string { return monday.AddDate(0, 0, days).Format("20060102") },
			"at": func(days int, clock string) string {
				return monday.AddDate(0, 0, days).Format("20060102") + "T" + clock + "00"
			},
			"stamp":  func() string { return now.UTC().Format("20060102T150405Z") },
			"date":   func(days int) string { return monday.AddDate(0, 0, days).Format("Monday, 2 January") },
			"header": func(text string) string { return mime.QEncoding.Encode("utf-8", text) },
			"base64": base64File,
		}),
	}
}

// firstName makes "Alice" of alice.miller@example.test.
func firstName(address string) string {
	name := address
	if end := strings.IndexFunc(address, func(r rune) bool { return !unicode.IsLetter(r) }); end > 0 {
		name = address[:end]
	}
	first, size := utf8.DecodeRuneInString(name)
	return string(unicode.ToUpper(first)) + name[size:]
}

// base64File gives a sample file in lines of 76 characters (RFC 2045 section 6.8).
func base64File(name string) (string, error) {
	raw, err := sampleFiles.ReadFile("samples/" + name)
	if err != nil {
		return "", err
	}
	var lines strings.Builder
	for text := base64.StdEncoding.EncodeToString(raw); text != ""; {
		n := min(76, len(text))
		lines.WriteString(text[:n] + "\n")
		text = text[n:]
	}
	return strings.TrimSuffix(lines.String(), "\n"), nil
}

// render returns a file with CRLF line ends, as all these formats want them.
func (s *samples) render(name string) (string, error) {
	t, err := s.template.Clone()
	if err != nil {
		return "", err
	}
	if t, err = t.ParseFS(sampleFiles, "samples/"+name); err != nil {
		return "", err
	}
	var b strings.Builder
	if err := t.ExecuteTemplate(&b, path.Base(name), s); err != nil {
		return "", err
	}
	return strings.ReplaceAll(b.String(), "\n", "\r\n"), nil
}

// sampleMail is one message and where it lies.
type sampleMail struct {
	file    string
	mailbox string
	flags   []imap.Flag
	raw     []byte
	date    time.Time
}

// mails renders the messages, oldest first in each mailbox.
func (s *samples) mails() ([]sampleMail, error) {
	seen := []imap.Flag{imap.FlagSeen}
	mails := []sampleMail{
		{file: "greeting.eml", mailbox: "INBOX", flags: []imap.Flag{imap.FlagSeen, imap.FlagFlagged}},
		{file: "library.eml", mailbox: "INBOX", flags: seen},
		{file: "minutes.eml", mailbox: "INBOX", flags: []imap.Flag{imap.FlagSeen, imap.FlagAnswered}},
		{file: "choir.eml", mailbox: "INBOX", flags: seen},
		{file: "newsletter.eml", mailbox: "INBOX"},
		{file: "tokyo.eml", mailbox: "INBOX"},
		{file: "invitation.eml", mailbox: "INBOX"},
		{file: "welcome.eml", mailbox: "INBOX"},
		{file: "reply.eml", mailbox: "Sent", flags: seen},
		{file: "draft.eml", mailbox: "Drafts", flags: []imap.Flag{imap.FlagSeen, imap.FlagDraft}},
		{file: "ticket.eml", mailbox: "Archive", flags: seen},
		{file: "prize.eml", mailbox: "Junk"},
	}
	for i := range mails {
		text, err := s.render("mail/" + mails[i].file)
		if err != nil {
			return nil, err
		}
		m, err := mail.ReadMessage(strings.NewReader(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", mails[i].file, err)
		}
		if mails[i].date, err = m.Header.Date(); err != nil {
			return nil, fmt.Errorf("%s: %w", mails[i].file, err)
		}
		mails[i].raw = []byte(text)
	}
	return mails, nil
}

// sampleCollection is a calendar or an address book to be.
type sampleCollection struct {
	file       string
	home       string
	name       string
	title      string
	color      string
	components []string // what a calendar takes; empty: everything
}

var sampleCollections = []sampleCollection{
	{file: "personal.ics", home: calendars, name: "personal", title: "Personal", color: "#3584E4FF"},
	{file: "work.ics", home: calendars, name: "work", title: "Work", color: "#E66100FF", components: []string{"VEVENT"}},
	{file: "tasks.ics", home: calendars, name: "tasks", title: "Tasks", color: "#2EC27EFF", components: []string{"VTODO"}},
	{file: "contacts.vcf", home: contacts, name: "contacts", title: "Contacts"},
}

// items renders a collection's members.
func (s *samples) items(c sampleCollection) ([][]byte, error) {
	text, err := s.render(c.file)
	if err != nil {
		return nil, err
	}
	zone, err := s.render("timezone.ics")
	if err != nil {
		return nil, err
	}
	var items [][]byte
	for part := range strings.SplitSeq(strings.TrimSpace(text), "\r\n\r\n") {
		part += "\r\n"
		if c.home == calendars {
			part = calendarObject(part, zone)
		}
		items = append(items, []byte(part))
	}
	return items, nil
}

// calendarObject wraps a component; a time zone that it names must be defined beside it (RFC 5545 section 3.2.19).
func calendarObject(component, zone string) string {
	var b bytes.Buffer
	b.WriteString("BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//Postern//Demo//EN\r\n")
	if strings.Contains(component, "TZID=") {
		b.WriteString(zone)
	}
	b.WriteString(component)
	b.WriteString("END:VCALENDAR\r\n")
	return b.String()
}
