package testlab

import (
	"crypto/tls"
	"net/http"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"
)

func login(t *testing.T, d *DovecotServer, user string) *imapclient.Client {
	t.Helper()
	c, err := imapclient.DialTLS(d.IMAPS, &imapclient.Options{TLSConfig: &tls.Config{RootCAs: d.CA.Pool}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Authenticate(sasl.NewPlainClient(user, d.MasterUser, d.MasterPassword)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDovecot(t *testing.T) {
	t.Parallel()
	d := Dovecot(t)
	d.Deliver(Alice, "INBOX", []byte("Subject: hi\r\n\r\nhello\r\n"))
	d.Deliver(Alice, "Projekte/Größe", []byte("Subject: hi\r\n\r\nhello\r\n"))
	c := login(t, d, Alice)
	t.Log(c.Caps())
	for _, box := range []string{"INBOX", "Projekte/Größe"} {
		status, err := c.Select(box, nil).Wait()
		if err != nil || status.NumMessages != 1 {
			t.Fatal(box, err, status)
		}
	}
	d.Pause()
	d.Resume()
	d.Stop()
	d.Start()
	login(t, d, Bob)
}

func propfind(t *testing.T, url, user string) string {
	t.Helper()
	req, _ := http.NewRequest("PROPFIND", url+"/"+user+"/", strings.NewReader(`<propfind xmlns="DAV:"><prop><current-user-principal/></prop></propfind>`))
	req.Header.Set("X-Remote-User", user)
	req.Header.Set("Depth", "0")
	req.Header.Set("Content-Type", "application/xml")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b strings.Builder
	resp.Write(&b)
	return b.String()
}

func TestDAV(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(testing.TB) *DAVServer{"radicale": Radicale, "xandikos": Xandikos} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			got := propfind(t, s.URL, Alice)
			if !strings.Contains(got, "207 ") || !strings.Contains(got, "alice") {
				t.Error(got)
			}
			s.Stop()
			s.Start()
		})
	}
}

func TestRedis(t *testing.T) {
	t.Parallel()
	r := Redis(t)
	r.Pause()
	r.Resume()
	r.Kill()
	r.Start()
	RedisAuth(t)
}
