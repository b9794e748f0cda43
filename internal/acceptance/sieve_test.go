package acceptance

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/testlab"
)

// sieveSite is a gateway with ManageSieve in front of a Dovecot.
type sieveSite struct {
	*site
	*gateway
	dovecot      *testlab.DovecotServer
	sieve, plain string // STARTTLS, and plain text
	app          appPassword
	t            *testing.T
}

// sieve starts one. Alice has an app password for it. address is where the gateway finds Dovecot, in plain text; empty: by itself, over STARTTLS.
func sieve(t *testing.T, dovecot *testlab.DovecotServer, address string) *sieveSite {
	t.Helper()
	s := newSite(t)
	s.backend = otherBackend(t, dovecot, s.dir, "managesieve", dovecot.Sieve, address)
	k := &sieveSite{site: s, gateway: s.serve(), dovecot: dovecot, t: t}
	s.cli(k.config, "account", "add", alice)
	k.app = s.password(k.config, alice, "--scopes", "sieve")
	ports := testlab.Ports(t, 2)
	k.sieve, k.plain = fmt.Sprintf("127.0.0.1:%d", ports[0]), fmt.Sprintf("127.0.0.1:%d", ports[1])
	k.change("listener = [\n", fmt.Sprintf("listener = [\n  { protocol = \"managesieve\", address = %q, tls = \"starttls\" },\n  { protocol = \"managesieve\", address = %q, tls = \"none\" },\n", k.sieve, k.plain))
	k.reload(`"msg":"reloaded"`)
	return k
}

// siever is a ManageSieve client that says what it is told.
type siever struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

func (s *sieveSite) dialSieve(address string) *siever {
	s.t.Helper()
	conn, err := dialAny(s.site, address, false)
	if err != nil {
		s.t.Fatal(err)
	}
	return newSiever(s.t, conn)
}

func newSiever(t *testing.T, conn net.Conn) *siever {
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	return &siever{conn, t, bufio.NewReader(conn)}
}

// wants sends words, unless they are empty, and reads a response of which the last line must begin so. It returns what stands before that.
func (k *siever) wants(words, begin string) string {
	k.t.Helper()
	if words != "" {
		fmt.Fprintf(k, "%s\r\n", words)
	}
	var data strings.Builder
	for {
		line, err := k.r.ReadString('\n')
		if err != nil {
			k.t.Fatalf("%.20q: got %q, %v; want %s", words, line, err, begin)
		}
		if literal := 0; strings.HasSuffix(line, "}\r\n") {
			fmt.Sscanf(line[strings.LastIndex(line, "{"):], "{%d}", &literal)
			text := make([]byte, literal+2)
			if _, err := io.ReadFull(k.r, text); err != nil {
				k.t.Fatalf("%.20q: %v in a literal", words, err)
			}
			if line[0] == '{' {
				data.Write(text[:literal])
				continue
			}
			line += string(text)
		}
		switch word, _, _ := strings.Cut(strings.TrimSpace(line), " "); word {
		case "OK", "NO", "BYE":
			if !strings.HasPrefix(line, begin) {
				k.t.Fatalf("%.20q: got %q, want %s", words, line, begin)
			}
			return data.String()
		}
		data.WriteString(line)
	}
}

func plainResponse(user, secret string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + secret))
}

func (k *siever) logIn(user, secret, want string) *siever {
	k.t.Helper()
	k.wants(fmt.Sprintf("AUTHENTICATE \"PLAIN\" %q", plainResponse(user, secret)), want)
	return k
}

// enter connects in plain text and logs in.
func (s *sieveSite) enter() *siever {
	s.t.Helper()
	k := s.dialSieve(s.plain)
	k.wants("", "OK")
	return k.logIn(alice, s.app.Secret, "OK")
}

// startTLS connects and starts TLS. It returns the capabilities as they are told then.
func (s *sieveSite) startTLS() (k *siever, capabilities string) {
	s.t.Helper()
	k = s.dialSieve(s.sieve)
	if list := k.wants("", "OK"); !strings.Contains(list, "\"SASL\" \"\"\r\n\"STARTTLS\"\r\n") {
		s.t.Errorf("the greeting before TLS:\n%s", list)
	}
	k.logIn(alice, s.app.Secret, "NO (ENCRYPT-NEEDED)")
	k.wants("STARTTLS", "OK")
	k = newSiever(s.t, tls.Client(k.Conn, s.tls()))
	return k, k.wants("", "OK")
}

// rest is what is still said until the connection ends, in whichever way.
func (k *siever) rest() string {
	text, _ := io.ReadAll(k.r)
	return string(text)
}

// capability is the line of a list that tells something; empty: none.
func capability(list, name string) string {
	for line := range strings.Lines(list) {
		if strings.HasPrefix(line, `"`+name+`"`) {
			return line
		}
	}
	return ""
}

// script is one of so many bytes, which do nothing.
func script(size int) string {
	return strings.Repeat("# UNAUTHENTICATE, OK {5} and other words\r\n", size/42+1)[:size-2] + "\r\n"
}

// Scripts are stored, checked, listed, activated, read and removed, with an app password for them and with no other.
func TestManageSieve(t *testing.T) {
	t.Parallel()
	s := sieve(t, testlab.Dovecot(t, testlab.Sieve()), "")
	k, list := s.startTLS()
	if capability(list, "SIEVE") == "\"SIEVE\" \"\"\r\n" {
		t.Error("the backend was not asked at the start")
	}
	k.logIn(alice, s.password(s.config, alice, "--scopes", "mail").Secret, `NO "This app password does not open mail filters."`)
	k.logIn(alice, "abcde-fghjk-mnopq-rstuv", `NO "`)
	fmt.Fprintf(k, "AUTHENTICATE \"PLAIN\" %q\r\nLISTSCRIPTS\r\n", plainResponse(alice, s.app.Secret)) // in one write
	k.wants("", `OK "Logged in."`)
	k.wants("", "OK")

	inside := k.wants("CAPABILITY", "OK")
	for _, name := range []string{"SIEVE", "NOTIFY", "MAXREDIRECTS", "VERSION"} {
		if want := capability(inside, name); want == "" || capability(list, name) != want {
			t.Errorf("before the login %q, after it %q", capability(list, name), want)
		}
	}
	if strings.Contains(list, "XCLIENT") || strings.Contains(list, "Pigeonhole") {
		t.Errorf("what the backend says of itself is told:\n%s", list)
	}
	mine, largest := "require [\"fileinto\"];\r\nfileinto \"Ärger\";\r\n", script(1<<20)
	put := func(name, text string) string { return fmt.Sprintf("PUTSCRIPT %s {%d+}\r\n%s", name, len(text), text) }
	k.wants("HAVESPACE \"größer\" 1048576", "OK")
	k.wants(put(`"größer"`, largest), "OK")
	k.wants(put(`"mine"`, mine), "OK")
	k.wants(put(`"too large"`, script(1<<20+1)), "NO (QUOTA/MAXSIZE)")
	k.wants(put(`"bad"`, "nonsense\r\n"), "NO {")
	k.wants(fmt.Sprintf("CHECKSCRIPT {%d+}\r\n%s", len(mine), mine), "OK")
	k.wants("SETACTIVE \"mine\"", "OK")
	k.wants("UNAUTHENTICATE", `NO "Close the connection instead."`)
	if got := k.wants("LISTSCRIPTS", "OK"); !strings.Contains(got, "\"mine\" ACTIVE\r\n") || !strings.Contains(got, "\"größer\"\r\n") {
		t.Errorf("LISTSCRIPTS: %q", got)
	}
	for name, want := range map[string]string{"mine": mine, "größer": largest} {
		if got := k.wants(fmt.Sprintf("GETSCRIPT %q", name), "OK"); got != want {
			t.Errorf("%s comes back as %d bytes, not %d", name, len(got), len(want))
		}
	}
	k.wants("DELETESCRIPT \"mine\"", "NO (ACTIVE)")
	k.wants("SETACTIVE \"\"", "OK")
	k.wants("RENAMESCRIPT \"mine\" \"yours\"", "OK")
	k.wants("DELETESCRIPT \"yours\"", "OK")
	k.wants("DELETESCRIPT \"größer\"", "OK")
	k.wants("LOGOUT", "OK")

	if out := s.cli(s.config, "password", "create", alice, "--label", "x", "--scopes", "sieve"); !strings.Contains(out, "ManageSieve  localhost, port ") || !strings.Contains(out, ", STARTTLS\n") {
		t.Errorf("what is told with an app password:\n%s", out)
	}
	if out := s.cli(whole(t, s.config), "check"); !strings.Contains(out, "logged in for "+alice) {
		t.Errorf("check:\n%s", out)
	}
	if log := s.dovecot.Log(); !strings.Contains(log, "user=<"+alice+">, method=PLAIN, rip=127.0.0.1") {
		t.Errorf("Dovecot's log:\n%s", log)
	}
}

// sieve-connect, as people use it on the command line.
func TestSieveConnect(t *testing.T) {
	t.Parallel()
	testlab.Need(t, "sieve-connect")
	s := sieve(t, testlab.Dovecot(t, testlab.Sieve()), "")
	local := filepath.Join(t.TempDir(), "local.sieve")
	text := script(100 << 10)
	if err := os.WriteFile(local, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(secret string, args ...string) (string, error) {
		cmd := testlab.Command(t, "sieve-connect", append([]string{"--server", "localhost", "--4", "--port", port(s.sieve), "--user", alice, "--authmech", "PLAIN", "--passwordfd", "0",
			"--tlscafile", s.ca.File}, args...)...)
		cmd.Stdin = strings.NewReader(secret + "\n")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	must := func(args ...string) string {
		t.Helper()
		out, err := run(s.app.Secret, args...)
		if err != nil {
			t.Fatalf("sieve-connect %q: %v\n%s", args, err, out)
		}
		return out
	}
	must("--localsieve", local, "--remotesieve", "mine", "--upload")
	must("--localsieve", local, "--checkscript")
	must("--remotesieve", "mine", "--activate")
	if out := must("--list"); !strings.Contains(out, "\"mine\" ACTIVE") {
		t.Errorf("list: %q", out)
	}
	must("--localsieve", local+".back", "--remotesieve", "mine", "--download")
	if back, err := os.ReadFile(local + ".back"); err != nil || !bytes.Contains(back, []byte(strings.TrimSpace(text))) {
		t.Errorf("downloaded %d bytes, %v", len(back), err)
	}
	must("--deactivate")
	must("--remotesieve", "mine", "--delete")
	if out, err := run("abcde-fghjk-mnopq-rstuv", "--list"); err == nil {
		t.Errorf("with a wrong password: %q", out)
	}
}

// Sessions end with their app password: told why behind an answer, cut in the middle of one.
func TestManageSieveIsRevoked(t *testing.T) {
	t.Parallel()
	dovecot := testlab.Dovecot(t, testlab.Sieve())
	hold := newHold(t, dovecot.Sieve)
	s := sieve(t, dovecot, hold.address)
	<-hold.sent // the backend was asked
	k := s.enter()
	text := script(1 << 20)
	k.wants(fmt.Sprintf("PUTSCRIPT \"big\" {%d+}\r\n%s", len(text), text), "OK")
	k.wants("GETSCRIPT \"big\"", "OK")
	k.wants("LOGOUT", "OK")
	whole := <-hold.sent
	release := hold.next(whole - 1000)
	defer release()
	reading, idle, storing := s.enter(), s.enter(), s.enter()
	fmt.Fprintf(reading, "PUTSCRIPT \"big\" {%d+}\r\n%s\r\nGETSCRIPT \"big\"\r\n", len(text), text)
	<-hold.sent
	fmt.Fprintf(storing, "NOOP\r\nPUTSCRIPT \"more\" {%d+}\r\n%s", len(text), text[:1<<19])
	storing.wants("", "OK")
	s.cli(s.config, "password", "revoke", fmt.Sprint(s.app.ID))
	const revoked = "BYE \"This app password was revoked.\"\r\n"
	if got := idle.rest(); got != revoked {
		t.Errorf("between commands: %q", got)
	}
	if got := storing.rest(); got != revoked {
		t.Errorf("in PUTSCRIPT: %q", got)
	}
	if got := reading.rest(); strings.Contains(got, "BYE") || len(got) < 1<<19 {
		t.Errorf("in GETSCRIPT: %d bytes that end with %q", len(got), got[max(0, len(got)-100):])
	}
	again := s.dialSieve(s.plain)
	again.wants("", "OK")
	again.logIn(alice, s.app.Secret, `NO "Wrong`)
}

// A gateway that is told to stop lets who is in the middle of a command finish it.
func TestManageSieveIsDrained(t *testing.T) {
	t.Parallel()
	s := sieve(t, testlab.Dovecot(t, testlab.Sieve()), "")
	idle, storing := s.enter(), s.enter()
	outside, _ := s.startTLS()
	text := script(1 << 20)
	fmt.Fprintf(storing, "NOOP\r\nPUTSCRIPT \"big\" {%d+}\r\n%s", len(text), text[:1<<19])
	storing.wants("", "OK")
	s.Signal(syscall.SIGTERM)
	const bye = "BYE (TRYLATER) \"Shutting down; please connect again.\"\r\n"
	if got := idle.rest(); got != bye {
		t.Errorf("between commands: %q", got)
	}
	if got := outside.rest(); got != bye {
		t.Errorf("before the login: %q", got)
	}
	fmt.Fprintf(storing, "%s\r\n", text[1<<19:])
	if got := storing.rest(); got != "OK \"PUTSCRIPT completed.\"\r\n"+bye {
		t.Errorf("in PUTSCRIPT: %q", got)
	}
	if code := s.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// A backend that dies, wherever in a login that is, is no wrong password.
func TestManageSieveBackendDies(t *testing.T) {
	t.Parallel()
	dovecot := testlab.Dovecot(t, testlab.Sieve())
	hold := newHold(t, dovecot.Sieve)
	s := sieve(t, dovecot, hold.address)
	<-hold.sent // the backend was asked
	s.enter().wants("LOGOUT", "OK")
	whole := <-hold.sent // with the answer to LOGOUT
	for _, at := range []int{0, 1, whole / 4, whole / 2, whole - len("OK \"Logout completed.\"\r\n") - 1} {
		release := hold.next(at)
		k := s.dialSieve(s.plain)
		k.wants("", "OK")
		fmt.Fprintf(k, "AUTHENTICATE \"PLAIN\" %q\r\n", plainResponse(alice, s.app.Secret))
		<-hold.sent
		dovecot.Kill()
		release()
		k.wants("", "NO (TRYLATER)")
		k.logIn(alice, s.app.Secret, "NO (TRYLATER)") // nobody is there
		dovecot.Start()
		k.logIn(alice, s.app.Secret, "OK")
		k.wants("LISTSCRIPTS", "OK")
		dovecot.Kill()
		if got := k.rest(); got != "" && !strings.HasPrefix(got, "BYE") {
			t.Errorf("killed after the login: %q", got)
		}
		dovecot.Start()
	}
}
