package testlab

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/template"
	"time"
)

// DovecotServer is one Dovecot with the lab's users.
type DovecotServer struct {
	*Server
	Version        string // "2.3" or "2.4", which differ in what Lines must say
	IMAP           string // host:port, STARTTLS
	IMAPS          string // host:port, TLS
	POP3           string // host:port, STLS, with the option POP3
	POP3S          string // host:port, TLS, with the option POP3
	Submission     string // host:port, STARTTLS, with the option Submission
	Submissions    string // host:port, TLS, with the option Submission
	Sieve          string // host:port, ManageSieve with STARTTLS, with the option Sieve
	CA             *CA    // of its certificate, for localhost, 127.0.0.1, ::1 and {imap,pop,smtp,sieve}.example.test
	CAFile         string
	MasterUser     string // may log in as any user (SASL PLAIN with an authzid)
	MasterPassword string

	authSocket string            // where Postfix asks, in Dovecot's authentication protocol
	mailOwner  owner             // Dovecot reads none as root
	primaries  map[string]string // by user: what SetPrimary changed
	changes    atomic.Int64      // of primaries
	delivered  atomic.Int64
}

// Option changes how a Dovecot is configured.
type Option func(*dovecotConfig)

// NoMaster leaves out the master user: only primary passwords log in.
func NoMaster() Option { return func(c *dovecotConfig) { c.NoMaster = true } }

// POP3 adds POP3.
func POP3() Option {
	return func(c *dovecotConfig) {
		c.programs = append(c.programs, "/usr/lib/dovecot/pop3")
		c.ports = append(c.ports, &c.POP3, &c.POP3S)
	}
}

// Submission adds a submission server. It hands mail on to an SMTP server, host:port, such as a Postfix's Relay: connects without TLS as soon as a client
// has logged in, and tells the client's address and login if XCLIENT is offered. The relay may be down when the Dovecot starts.
func Submission(relay string) Option {
	return func(c *dovecotConfig) {
		c.programs = append(c.programs, "/usr/lib/dovecot/submission")
		c.ports = append(c.ports, &c.Submission, &c.Submissions)
		c.RelayHost, c.RelayPort, c.err = net.SplitHostPort(relay)
	}
}

// Sieve adds ManageSieve. Each user's scripts lie in the folder sieve of the home, which is Dir/mail/USER.
func Sieve() Option {
	return func(c *dovecotConfig) {
		c.programs = append(c.programs, "/usr/lib/dovecot/managesieve", "sievec")
		c.ports = append(c.ports, &c.Sieve)
	}
}

// Tokens has it take tokens of an authorization server, by OAUTHBEARER and XOAUTH2 or the one of them that is named, beside passwords. It asks that server
// about each.
func Tokens(s *TokenServer, mechanisms ...string) Option {
	return func(c *dovecotConfig) {
		c.Introspect, c.Mechanisms = s.Plain+"/introspect", "oauthbearer xoauth2"
		if len(mechanisms) > 0 {
			c.Mechanisms = strings.ToLower(strings.Join(mechanisms, " "))
		}
	}
}

// Lines adds lines to the end of dovecot.conf, where they win over what stands before.
func Lines(lines ...string) Option {
	return func(c *dovecotConfig) { c.Extra = append(c.Extra, lines...) }
}

type dovecotConfig struct {
	Dir                        string
	IMAP, IMAPS                int
	POP3, POP3S                int // 0: not served
	Submission, Submissions    int
	Sieve                      int
	RelayHost, RelayPort       string
	AuthSocket                 string
	CertFile, KeyFile          string
	Users                      []string
	MasterUser, MasterPassword string
	NoMaster                   bool
	User, Group                string // who owns the mail
	Root                       bool   // started as root: processes get users of their own
	Introspect                 string // URL; empty: no tokens are taken
	Mechanisms                 string // of tokens
	Extra                      []string

	programs []string // that options need
	ports    []*int   // that are to be reserved
	err      error    // of an option's argument
}

//go:embed dovecot2.3.conf dovecot2.4.conf
var dovecotFiles embed.FS

// dovecotTemplates holds a configuration for each syntax that there is.
var dovecotTemplates = template.Must(template.ParseFS(dovecotFiles, "*.conf"))

// dovecotVersion is the installed Dovecot's, like "2.3".
var dovecotVersion = sync.OnceValues(func() (string, error) {
	out, err := exec.Command(find("dovecot"), "--version").Output()
	if err != nil {
		return "", fmt.Errorf("dovecot --version: %w", err)
	}
	version := string(out[:min(3, len(out))])
	if dovecotTemplates.Lookup("dovecot"+version+".conf") == nil {
		return "", fmt.Errorf("the lab knows Dovecot 2.3 and 2.4, not %q", out)
	}
	return version, nil
})

// Dovecot starts a Dovecot, 2.3 or 2.4, that offers what Postern must let pass: COMPRESS, METADATA, NOTIFY, QUOTA, ACL, special-use mailboxes, the client's address by ID.
func Dovecot(t testing.TB, options ...Option) *DovecotServer {
	t.Helper()
	Need(t, "dovecot")
	version, err := dovecotVersion()
	if err != nil {
		t.Fatal(err)
	}
	dir := Dir(t)
	d := &DovecotServer{Version: version, CA: NewCA(t), MasterUser: "gateway", MasterPassword: "gateway-secret"}
	d.CAFile = d.CA.File
	c := dovecotConfig{Dir: dir, Users: users, MasterUser: d.MasterUser, MasterPassword: d.MasterPassword, Root: os.Getuid() == 0}
	c.CertFile, c.KeyFile, _ = d.CA.Issue("imap.example.test", "pop.example.test", "smtp.example.test", "sieve.example.test")
	c.ports = []*int{&c.IMAP, &c.IMAPS}
	for _, option := range options {
		option(&c)
	}
	if c.err != nil {
		t.Fatal(c.err)
	}
	Need(t, c.programs...)
	d.mailOwner = unprivileged(t)
	c.User, c.Group = d.mailOwner.name, d.mailOwner.group
	d.makeFiles(t, &c)
	d.reservePorts(t, &c)
	d.authSocket = filepath.Join(dir, "auth-client")
	c.AuthSocket = d.authSocket
	var text strings.Builder
	if err := dovecotTemplates.ExecuteTemplate(&text, "dovecot"+version+".conf", c); err != nil {
		t.Fatal(err)
	}
	d.Server = serve(t, "dovecot", dir, launch{
		argv:  []string{find("dovecot"), "-F", "-c", write(t, text.String(), dir, "dovecot.conf")},
		ready: func() error { return dialogue(d.IMAP, "", "* OK ") },
	})
	return d
}

func (d *DovecotServer) reservePorts(t testing.TB, c *dovecotConfig) {
	t.Helper()
	for i, port := range Ports(t, len(c.ports)) {
		*c.ports[i] = port
	}
	for port, addr := range map[int]*string{
		c.IMAP: &d.IMAP, c.IMAPS: &d.IMAPS, c.POP3: &d.POP3, c.POP3S: &d.POP3S,
		c.Submission: &d.Submission, c.Submissions: &d.Submissions, c.Sieve: &d.Sieve,
	} {
		if port != 0 {
			*addr = local(port)
		}
	}
}

func (d *DovecotServer) makeFiles(t testing.TB, c *dovecotConfig) {
	t.Helper()
	for _, user := range users {
		if err := d.makeFolder(filepath.Join(c.Dir, "mail", user)); err != nil {
			t.Fatal(err)
		}
	}
	write(t, d.passwd(), c.Dir, "users")
	write(t, c.MasterUser+":"+c.MasterPassword+"\n", c.Dir, "masters")
	// 2.3 reads these from a file of their own. Without active_attribute it takes any answer for a yes.
	write(t, "introspection_mode = post\nintrospection_url = "+c.Introspect+"\nforce_introspection = yes\nusername_attribute = username\n"+
		"active_attribute = active\nactive_value = true\n", c.Dir, "oauth2.conf.ext")
}

func (d *DovecotServer) passwd() string {
	var lines strings.Builder
	for _, user := range users {
		primary, changed := d.primaries[user]
		if !changed {
			primary = Primary(user)
		}
		fmt.Fprintf(&lines, "%s:%s::::::\n", user, primary) // the fields behind are the userdb's, all by default
	}
	return lines.String()
}

// SetPrimary changes a user's primary password, as its owner would, and returns when logins see it. It may hold any byte but NUL, line ends and
// colons, which the file can't.
func (d *DovecotServer) SetPrimary(user, password string) {
	d.t.Helper()
	if d.primaries == nil {
		d.primaries = make(map[string]string)
	}
	d.primaries[user] = password
	path := filepath.Join(d.Dir, "users")
	write(d.t, d.passwd(), d.Dir, "users.new")
	// Dovecot looks at the file's time, in seconds, and at most once in each; what it sees in the next is seen by all that follows.
	stamp := time.Now().Add(time.Duration(d.changes.Add(1)) * 2 * time.Second)
	if err := errors.Join(os.Chtimes(path+".new", stamp, stamp), os.Rename(path+".new", path)); err != nil {
		d.t.Fatal(err)
	}
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(1050 * time.Millisecond)))
}

// Deliver puts a message into a user's mailbox, "INBOX" or a name like "Archive/2026", as a delivery agent does: sessions in IDLE see it at once. A missing mailbox is made.
func (d *DovecotServer) Deliver(user, mailbox string, message []byte) {
	d.t.Helper()
	if err := d.deliver(user, mailbox, message); err != nil {
		d.t.Fatalf("deliver to %s of %s: %v", mailbox, user, err)
	}
}

func (d *DovecotServer) deliver(user, mailbox string, message []byte) error {
	dir := filepath.Join(d.Dir, "mail", user, "Maildir")
	if mailbox != "INBOX" {
		dir = filepath.Join(dir, "."+strings.ReplaceAll(mailbox, "/", "."))
	}
	for _, sub := range []string{"tmp", "new", "cur"} {
		if err := d.makeFolder(filepath.Join(dir, sub)); err != nil {
			return err
		}
	}
	name := fmt.Sprintf("%d.M%dP%d.lab", time.Now().Unix(), d.delivered.Add(1), os.Getpid())
	tmp := filepath.Join(dir, "tmp", name)
	if err := os.WriteFile(tmp, message, 0o600); err != nil {
		return err
	}
	if err := d.mailOwner.give(tmp); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, "new", name))
}

// makeFolder makes a folder and those above it for the mail's owner.
func (d *DovecotServer) makeFolder(dir string) error {
	err := os.Mkdir(dir, 0o700)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, fs.ErrNotExist):
		if err := d.makeFolder(filepath.Dir(dir)); err != nil {
			return err
		}
		return d.makeFolder(dir)
	case err != nil:
		return err
	}
	return d.mailOwner.give(dir)
}
