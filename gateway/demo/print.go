package demo

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"postern/authstore"
)

// Tour is what the demo tells its user: where the front doors are, what opens them, and what to try.
type Tour struct {
	Dir             string // absolute; holds ca.pem (NewCA) and what WriteFiles makes
	Address         string // the account's
	PublicID        string // the account's, as it stands in DAV paths
	IMAPSPort       int
	IMAPPort        int // STARTTLS
	DAVPort         int
	SubmissionsPort int        // for sending, TLS
	SubmissionPort  int        // STARTTLS
	Passwords       []Password // one of each preset that the front doors enforce, and Single
	PortalPort      int        // https://localhost
	SignIn          SignIn     // at the portal
}

// SignIn is what signs the account in at the portal. Its secrets are told once, in Text.
type SignIn struct {
	Primary string   // the primary password
	Codes   []string // recovery codes: each is a second factor, once
	Key     string   // of an authenticator app, in base32
}

// Password is an app password. Its secret is told once, in Text.
type Password struct {
	Preset authstore.Preset
	Secret string
}

// Single is what stands for a preset where an app password opens a single calendar, "work".
const Single = "only-work"

// step is one command with what it shows.
type step struct{ shows, command string }

// WriteFiles makes what the commands read: for each preset a configuration of curl with the login, so that no secret stands in
// the list of processes, and a message. Only their owner can read them.
func (t Tour) WriteFiles() error {
	for _, p := range t.Passwords {
		config := fmt.Sprintf("silent\nshow-error\nuser = %s\n", curlQuote(t.Address+":"+p.Secret))
		if err := writePrivate(t.loginFile(p.Preset.Name), config); err != nil {
			return err
		}
	}
	hello, err := newSamples(t.Address).render("hello.eml")
	if err != nil {
		return err
	}
	return writePrivate(filepath.Join(t.Dir, "hello.eml"), hello)
}

// writePrivate replaces what stands there, which may have been open to others.
func writePrivate(file, text string) error {
	if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
		return err
	}
	return os.WriteFile(file, []byte(text), 0o600)
}

func (t Tour) loginFile(preset string) string { return filepath.Join(t.Dir, preset+".curl") }

// curlQuote writes a string of a configuration file of curl's.
func curlQuote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:,=@%+-]+$`)

// shellQuote writes one word of a POSIX shell.
func shellQuote(s string) string {
	if plainWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// Commands lists the commands of Text, which run verbatim in a POSIX shell once WriteFiles has been called. Each ends by itself.
func (t Tour) Commands() []string {
	var commands []string
	for _, s := range t.steps() {
		commands = append(commands, s.command)
	}
	return commands
}

func (t Tour) steps() []step {
	ca := shellQuote(filepath.Join(t.Dir, "ca.pem"))
	curl := func(preset, args string) string {
		return fmt.Sprintf("curl --cacert %s -K %s %s", ca, shellQuote(t.loginFile(preset)), args)
	}
	hello := shellQuote(filepath.Join(t.Dir, "hello.eml"))
	imap := fmt.Sprintf("imaps://localhost:%d/", t.IMAPSPort)
	calendar := fmt.Sprintf("https://localhost:%d/dav/cal/%s/", t.DAVPort, t.PublicID)
	contacts := fmt.Sprintf("https://localhost:%d/dav/card/%s/", t.DAVPort, t.PublicID)
	dialogue := `printf 'a CAPABILITY\r\nb LOGOUT\r\n'`
	client := fmt.Sprintf("openssl s_client -quiet -verify_return_error -CAfile %s", ca)

	return []step{
		{"the mail folders", curl("mail", imap)},
		{"a message", curl("mail", "'"+imap+"INBOX;MAILINDEX=8'")},
		{"a new message: apps that wait for mail show it at once", curl("mail", "-T "+hello+" "+imap+"INBOX")},
		{"send it to yourself: it is shown here, and arrives in the INBOX", curl("mail", fmt.Sprintf("--mail-from %s --mail-rcpt %[1]s -T %s smtps://localhost:%d", t.Address, hello, t.SubmissionsPort))},
		{"the calendar's password does not open mail", curl("calendar", imap) + " || echo refused"},
		{"the calendars", curl("calendar", "-X PROPFIND -H Depth:1 "+calendar)},
		{"the one calendar that an app password may open", curl(Single, "-X PROPFIND -H Depth:1 "+calendar)},
		{"an event", curl("calendar-read", calendar+"personal/dinner.ics")},
		{"the read-only password makes no calendar: 403", curl("calendar-read", `-X MKCALENDAR -w '%{http_code}\n' `+calendar+"new/")},
		{"a contact", curl("contacts", contacts+"contacts/enzo.vcf")},
		{"IMAP by hand", fmt.Sprintf("%s | %s -connect localhost:%d", dialogue, client, t.IMAPSPort)},
		{"and with STARTTLS", fmt.Sprintf("%s | %s -starttls imap -connect localhost:%d", dialogue, client, t.IMAPPort)},
	}
}

// Text is the welcome: up to 80 columns but for commands, each of which has a line of its own. It holds the secrets.
func (t Tour) Text() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }

	line("Postern demo: one account, and a password of its own for each kind of app.")
	line("Mail, calendars and contacts live in memory. Ctrl-C ends it all.")
	line("")
	line("Account  %s", t.Address)
	line("IMAP     localhost:%d (TLS)", t.IMAPSPort)
	line("         localhost:%d (STARTTLS)", t.IMAPPort)
	line("Sending  localhost:%d (TLS)", t.SubmissionsPort)
	line("         localhost:%d (STARTTLS)", t.SubmissionPort)
	line("DAV      https://localhost:%d/dav/", t.DAVPort)
	line("Portal   https://localhost:%d", t.PortalPort)
	line("CA       %s", filepath.Join(t.Dir, "ca.pem"))
	line("")
	line("The portal, where people make and revoke app passwords, in a browser that trusts")
	line("the CA (or goes on after a warning):")
	line("  address        %s", t.Address)
	line("  password       %s", t.SignIn.Primary)
	for i, code := range t.SignIn.Codes {
		title, note := "", ""
		if i == 0 {
			title, note = "second factor", "  (each of these once)"
		}
		line("  %-13s  %s%s", title, code, note)
	}
	line("  or by app      add this key to an authenticator app for its codes:")
	line("                 %s", t.SignIn.Key)
	line("")
	line("App passwords, shown this once:")
	for _, p := range t.Passwords {
		line("  %-13s  %s  %s", p.Preset.Name, p.Secret, p.Preset.Title)
	}
	line("")
	line("Paste into another terminal. The .curl files hold the logins and are for your")
	line("eyes only. For an app password that you made in the portal, put")
	line("-u %s in place of -K and its file: curl asks for it.", t.Address)
	for _, s := range t.steps() {
		line("")
		line("# %s", s.shows)
		line("%s", s.command)
	}
	line("")
	line("Thunderbird")
	line("  Trust      Settings > Privacy & Security > Manage Certificates > Authorities >")
	line("             Import the CA named above, to identify websites")
	line("  Mail       New account, configure manually: IMAP, localhost, port %d,", t.IMAPSPort)
	line("             SSL/TLS, normal password; user name: the account.")
	line("             Outgoing: localhost, port %d, SSL/TLS, and the same.", t.SubmissionsPort)
	line("  Calendars  New calendar > On the network; user name: the account;")
	line("             location: https://localhost:%d/dav/", t.DAVPort)
	line("  Contacts   New Address Book > Add remote Address Book; the same user name and")
	line("             location")
	line("  Password   any of the above that opens what you ask for")
	return b.String()
}
