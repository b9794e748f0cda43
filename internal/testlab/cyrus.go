package testlab

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// CyrusServer is a Cyrus httpd, where a full address is a user's name. It takes tokens and no passwords.
type CyrusServer struct {
	*DAVServer
	Key []byte // HS256, of Token and whoever else makes tokens
}

const cyrusConfig = `configdirectory: DIR/data/lib
partition-default: DIR/data/spool
proc_path: DIR/data/proc
mboxname_lockpath: DIR/data/lock
defaultpartition: default
servername: localhost
virtdomains: userid
defaultdomain: unused.invalid
unixhierarchysep: yes
httpmodules: caldav carddav
http_jwt_key_dir: DIR/keys
http_jwt_max_age: 10m
caldav_create_default: no
calendar_user_address_set: example.test
sasl_pwcheck_method: saslauthd
delete_mode: immediate
autocreate_users: anyone
autocreate_post: yes
autocreate_quota: 0
`

const cyrusServices = `START {
}
SERVICES {
	http cmd="BIN/httpd -C DIR/imapd.conf" listen="127.0.0.1:PORT" prefork=1
	lmtp cmd="BIN/lmtpd -a -C DIR/imapd.conf" listen="DIR/data/lmtp" prefork=0
}
`

// Cyrus starts a Cyrus httpd that knows the lab's users. Calendars and address books are in trees of their own.
func Cyrus(t testing.TB) *CyrusServer {
	t.Helper()
	programs := unpacked(t, "cyrus")
	mine := unprivileged(t)
	dir, port := Dir(t), Ports(t, 1)[0]
	c := &CyrusServer{Key: []byte("the key of the lab's Cyrus, " + filepath.Base(dir))}
	fill := strings.NewReplacer("DIR", dir, "BIN", filepath.Join(programs, "bin"), "PORT", fmt.Sprint(port))
	config := write(t, fill.Replace(cyrusConfig), dir, "imapd.conf")
	services := write(t, fill.Replace(cyrusServices), dir, "cyrus.conf")
	mine.folder(t, dir, "data") // Cyrus makes all in it
	if err := os.Mkdir(filepath.Join(dir, "keys"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, string(pem.EncodeToMemory(&pem.Block{Type: "HMAC KEY", Bytes: c.Key})), dir, "keys", "key.pem")
	homes := layout{"/dav/principals/user/USER/", "/dav/calendars/user/USER/", "/dav/addressbooks/user/USER/"}
	c.DAVServer = dav(t, "cyrus", dir, port, homes, c.byToken, "/usr/bin/env", "LD_LIBRARY_PATH="+filepath.Join(programs, "lib"),
		"CYRUS_USER="+mine.name, "CYRUS_GROUP="+mine.group,
		filepath.Join(programs, "bin/master"), "-D", "-C", config, "-M", services, "-p", filepath.Join(dir, "data/pid"))
	if err := makeMailboxes(filepath.Join(dir, "data/lmtp")); err != nil {
		t.Fatalf("make mailboxes in Cyrus: %v", err)
	}
	return c
}

// Token is what a user's requests carry as a bearer token for the next nine minutes. Debian's Cyrus refuses any further claim, in header and body, and a time
// of issue that it has not reached: its clock lags by some milliseconds.
func (c *CyrusServer) Token(user string) string {
	claims, err := json.Marshal(map[string]any{"sub": user, "iat": time.Now().Add(-time.Minute).Unix()})
	if err != nil {
		c.t.Fatal(err)
	}
	enc := base64.RawURLEncoding
	signed := enc.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + enc.EncodeToString(claims)
	mac := hmac.New(sha256.New, c.Key)
	mac.Write([]byte(signed))
	return signed + "." + enc.EncodeToString(mac.Sum(nil))
}

func (c *CyrusServer) byToken(req *http.Request, user string) {
	req.Header.Set("Authorization", "Bearer "+c.Token(user))
}

// makeMailboxes makes each user's mailbox, without which Cyrus shows a user no calendars: it does so for the first mail.
func makeMailboxes(socket string) error {
	var nc net.Conn
	deadline := time.Now().Add(patience)
	for {
		var err error
		if nc, err = net.Dial("unix", socket); err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
	defer nc.Close()
	nc.SetDeadline(deadline)
	r := bufio.NewReader(nc)
	lines := []string{"", "LHLO lab\r\n", "MAIL FROM:<>\r\n"}
	for _, user := range users {
		lines = append(lines, "RCPT TO:<"+user+">\r\n")
	}
	for _, line := range append(lines, "QUIT\r\n") {
		if _, err := nc.Write([]byte(line)); err != nil {
			return err
		}
		for {
			got, err := r.ReadString('\n')
			if err != nil {
				return err
			}
			if !strings.HasPrefix(got, "2") {
				return fmt.Errorf("%q to %q", got, line)
			}
			if got[3] == ' ' {
				break
			}
		}
	}
	return nil
}
