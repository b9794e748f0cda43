package testlab

import (
	"bufio"
	"bytes"
	"embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/template"
	"time"
)

// PostfixServer is one Postfix that takes mail to anybody from clients that are logged in, and keeps it. Logged in is, once TLS is on, who used AUTH and
// whom a peer on loopback named by XCLIENT LOGIN=. It does not check who sends as whom.
type PostfixServer struct {
	*Server
	Submission string // host:port, STARTTLS
	Relay      string // host:port, the same, but logins count without TLS too: for the option Submission of a Dovecot
	CA         *CA    // of its certificate, for localhost, 127.0.0.1, ::1 and smtp.example.test
	CAFile     string

	mu   sync.Mutex // guards seen
	seen map[string]Message
}

// Message is what a Postfix has accepted.
type Message struct {
	QueueID    string
	Sender     string
	Recipients []string
	Attributes map[string]string // what else was noted, named as postcat(1) does: sasl_username, client_address, helo_name, envelope_id ...
	Content    []byte            // Postfix's own Received line, then byte for byte what came, but for lines that end in LF: here in CRLF
}

// PostfixOption changes how a Postfix is configured.
type PostfixOption func(*postfixConfig)

// SASL has a Dovecot decide who logs in by AUTH: the users, and its master user in their names. Without this option AUTH is offered and refused.
func SASL(d *DovecotServer) PostfixOption {
	return func(c *postfixConfig) { c.AuthSocket = d.authSocket }
}

// MainCF adds lines to the end of main.cf, where they win over what stands before.
func MainCF(lines ...string) PostfixOption {
	return func(c *postfixConfig) { c.Extra = append(c.Extra, lines...) }
}

type postfixConfig struct {
	Dir               string
	Submission, Relay int
	CertFile, KeyFile string
	AuthSocket        string
	Extra             []string
}

//go:embed postfix-main.cf postfix-master.cf
var postfixFiles embed.FS

var postfixTemplates = template.Must(template.ParseFS(postfixFiles, "*.cf"))

// Postfix starts a Postfix, which only root can: elsewhere the test is skipped, and with CI=true it fails.
func Postfix(t testing.TB, options ...PostfixOption) *PostfixServer {
	t.Helper()
	needRoot(t, "postfix")
	Need(t, "postfix")
	p := &PostfixServer{CA: NewCA(t), seen: make(map[string]Message)}
	p.CAFile = p.CA.File
	ports := Ports(t, 2)
	c := postfixConfig{Dir: Dir(t), Submission: ports[0], Relay: ports[1]}
	p.Submission, p.Relay = local(c.Submission), local(c.Relay)
	c.CertFile, c.KeyFile, _ = p.CA.Issue("smtp.example.test")
	for _, option := range options {
		option(&c)
	}
	if c.AuthSocket == "" {
		c.AuthSocket = refuseLogins(t, c.Dir)
	}
	c.writeFiles(t)
	if err := makeQueue(c.Dir); err != nil {
		t.Fatal(err)
	}
	p.Server = serve(t, "postfix", c.Dir, launch{
		argv:  []string{postfixMaster, "-c", c.Dir, "-d"}, // -d: in the foreground
		ready: func() error { return dialogue(p.Submission, "", "220 ") },
	})
	return p
}

func (c postfixConfig) writeFiles(t testing.TB) {
	t.Helper()
	for _, name := range []string{"main.cf", "master.cf"} {
		var text strings.Builder
		if err := postfixTemplates.ExecuteTemplate(&text, "postfix-"+name, c); err != nil {
			t.Fatal(err)
		}
		file := write(t, text.String(), c.Dir, name)
		old := time.Now().Add(-time.Minute) // Postfix waits before it reads a file younger than a second or two, which may still be written
		if err := os.Chtimes(file, old, old); err != nil {
			t.Fatal(err)
		}
	}
}

// postfixMaster is what the program postfix starts after a second of checks.
const postfixMaster = "/usr/lib/postfix/sbin/master"

// makeQueue makes the folders that Postfix expects, as `postfix check` does in a second and a half.
func makeQueue(dir string) error {
	postfix, err := user.Lookup("postfix")
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(postfix.Uid)
	if err != nil {
		return err
	}
	for _, folder := range []string{"queue", "queue/pid"} { // root's
		if err := os.Mkdir(filepath.Join(dir, folder), 0o755); err != nil {
			return err
		}
	}
	for _, folder := range []string{"data", "queue/active", "queue/corrupt", "queue/deferred", "queue/hold", "queue/incoming", "queue/private", "queue/public"} {
		path := filepath.Join(dir, folder)
		if err := os.Mkdir(path, 0o700); err != nil {
			return err
		}
		if err := os.Chown(path, uid, -1); err != nil {
			return err
		}
	}
	return nil
}

// Messages returns what was accepted so far, in the order of arrival. It may be called while the server is down.
func (p *PostfixServer) Messages() []Message {
	p.t.Helper()
	messages, err := p.messages()
	if err != nil {
		p.t.Fatal(err)
	}
	return messages
}

// WaitMessages returns when at least n messages have been accepted.
func (p *PostfixServer) WaitMessages(n int) []Message {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		messages := p.Messages()
		if len(messages) >= n {
			return messages
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("postfix has accepted %d messages in %v, want %d", len(messages), patience, n)
		}
	}
}

// Queued returns the queue ids of what was accepted so far, in the order of arrival. It costs much less than Messages.
func (p *PostfixServer) Queued() []string {
	p.t.Helper()
	ids, err := p.queued()
	if err != nil {
		p.t.Fatal(err)
	}
	return ids
}

func (p *PostfixServer) queued() (ids []string, err error) {
	held, err := os.ReadDir(filepath.Join(p.Dir, "queue", "hold")) // sorted by name, and long queue ids begin with the time
	for _, file := range held {
		info, err := file.Info()
		if err != nil {
			return nil, err
		}
		if info.Mode()&0o100 != 0 { // else it is being written: the owner may execute what is complete
			ids = append(ids, file.Name())
		}
	}
	return ids, err
}

// Message returns what was accepted under a queue id.
func (p *PostfixServer) Message(id string) Message {
	p.t.Helper()
	m, err := p.message(id)
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}

func (p *PostfixServer) message(id string) (Message, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m, ok := p.seen[id]
	if ok {
		return m, nil
	}
	m, err := p.readMessage(id)
	if err == nil {
		p.seen[id] = m
	}
	return m, err
}

func (p *PostfixServer) messages() ([]Message, error) {
	ids, err := p.queued()
	messages := make([]Message, len(ids))
	for i, id := range ids {
		if messages[i], err = p.message(id); err != nil {
			return nil, err
		}
	}
	return messages, err
}

// readMessage asks postcat twice, since a message's text may look like its envelope.
func (p *PostfixServer) readMessage(id string) (Message, error) {
	envelope, err := postcat(p.Dir, "-e", id)
	if err != nil {
		return Message{}, err
	}
	content, err := postcat(p.Dir, "-bh", id)
	if err != nil {
		return Message{}, err
	}
	m := Message{QueueID: id, Attributes: make(map[string]string), Content: bytes.ReplaceAll(content, []byte("\n"), []byte("\r\n"))}
	for line := range strings.Lines(string(envelope)) {
		kind, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch kind {
		case "sender":
			m.Sender = value
		case "recipient":
			m.Recipients = append(m.Recipients, value)
		case "named_attribute":
			name, value, _ := strings.Cut(value, "=")
			m.Attributes[name] = value
		}
	}
	return m, nil
}

func postcat(dir, what, id string) ([]byte, error) {
	cmd := exec.Command(find("postcat"), "-c", dir, what, "-q", id)
	cmd.Env = environment(dir)
	out, err := cmd.Output()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, e.Stderr)
	}
	if err != nil {
		return nil, fmt.Errorf("postcat %s -q %s: %w", what, id, err)
	}
	return out, nil
}

// refuseLogins stands in for a Dovecot that knows nobody: without one Postfix takes no XCLIENT LOGIN either. It returns its socket.
func refuseLogins(t testing.TB, dir string) string {
	t.Helper()
	socket := filepath.Join(dir, "auth")
	ln, err := net.Listen("unix", socket)
	if err == nil {
		err = os.Chmod(socket, 0o666)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go refuseAll(c)
		}
	}()
	return socket
}

// refuseAll speaks Dovecot's authentication protocol 1.1 until the client goes, which is with Postfix.
func refuseAll(c net.Conn) {
	defer c.Close()
	fmt.Fprint(c, "VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nMECH\tLOGIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t00\nDONE\n")
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		if request := strings.Split(lines.Text(), "\t"); request[0] == "AUTH" && len(request) > 1 {
			fmt.Fprintf(c, "FAIL\t%s\n", request[1])
		}
	}
}
