package demo

import (
	"errors"
	"log/slog"
	"mime"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"
)

const alice = "alice@example.test"

func start(t *testing.T) *Backends {
	t.Helper()
	b, err := Start(slog.New(slog.DiscardHandler), func(Mail) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// dialIMAP connects without logging in. The deadline ends a test that would hang.
func dialIMAP(t *testing.T, b *Backends, options *imapclient.Options) *imapclient.Client {
	t.Helper()
	conn, err := net.Dial("tcp", b.IMAPAddress)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(time.Minute))
	c := imapclient.New(conn, options)
	t.Cleanup(func() { c.Close() })
	return c
}

func login(t *testing.T, b *Backends, address string, options *imapclient.Options) *imapclient.Client {
	t.Helper()
	c := dialIMAP(t, b, options)
	if err := c.Authenticate(sasl.NewPlainClient(address, b.MasterUser, string(b.MasterPassword))); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestIMAPLoginIsTheGatewaysOnly(t *testing.T) {
	b := start(t)
	for name, tt := range map[string]struct {
		authzid, authcid, password string
		want                       imap.ResponseCode
	}{
		"wrong password":   {alice, b.MasterUser, "wrong", imap.ResponseCodeAuthenticationFailed},
		"wrong user":       {alice, alice, string(b.MasterPassword), imap.ResponseCodeAuthenticationFailed},
		"empty password":   {alice, b.MasterUser, "", imap.ResponseCodeAuthenticationFailed},
		"on no one's part": {"", b.MasterUser, string(b.MasterPassword), imap.ResponseCodeAuthorizationFailed},
	} {
		t.Run(name, func(t *testing.T) {
			err := dialIMAP(t, b, nil).Authenticate(sasl.NewPlainClient(tt.authzid, tt.authcid, tt.password))
			if got, ok := errors.AsType[*imap.Error](err); !ok || got.Code != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
	t.Run("by LOGIN", func(t *testing.T) {
		if err := dialIMAP(t, b, nil).Login(b.MasterUser, string(b.MasterPassword)).Wait(); err == nil {
			t.Error("LOGIN was accepted")
		}
	})
	t.Run("by another mechanism", func(t *testing.T) {
		if err := dialIMAP(t, b, nil).Authenticate(sasl.NewAnonymousClient("")); err == nil {
			t.Error("ANONYMOUS was accepted")
		}
	})
}

func TestSampleMail(t *testing.T) {
	b := start(t)
	c := login(t, b, alice, nil)
	lists, err := c.List("", "*", nil).Collect()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range lists {
		names = append(names, l.Mailbox)
	}
	if !slices.Equal(names, mailboxes) {
		t.Errorf("mailboxes: got %q, want %q", names, mailboxes)
	}
	unseen, err := c.Status("INBOX", &imap.StatusOptions{NumUnseen: true, NumMessages: true}).Wait()
	if err != nil {
		t.Fatal(err)
	}
	if *unseen.NumMessages != 8 || *unseen.NumUnseen != 4 {
		t.Errorf("INBOX: %d messages, %d unseen; want 8 and 4", *unseen.NumMessages, *unseen.NumUnseen)
	}
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	all := imap.SeqSet{{Start: 1, Stop: 0}}
	messages, err := c.Fetch(all, &imap.FetchOptions{
		Envelope: true, BodyStructure: &imap.FetchItemBodyStructure{Extended: true},
	}).Collect()
	if err != nil {
		t.Fatal(err)
	}
	var subjects, types []string
	var last time.Time
	for _, m := range messages {
		subject, err := new(mime.WordDecoder).DecodeHeader(m.Envelope.Subject)
		if err != nil || m.Envelope.Date.Before(last) {
			t.Errorf("%q of %s: %v", m.Envelope.Subject, m.Envelope.Date, err)
		}
		last = m.Envelope.Date
		subjects = append(subjects, subject)
		m.BodyStructure.Walk(func(_ []int, part imap.BodyStructure) bool {
			types = append(types, part.MediaType())
			return true
		})
	}
	for _, want := range []string{"東京で会いましょう", "Menù della settimana"} {
		if !slices.Contains(subjects, want) {
			t.Errorf("no mail about %q in %q", want, subjects)
		}
	}
	for _, want := range []string{"text/html", "application/pdf", "text/calendar"} {
		if !slices.Contains(types, want) {
			t.Errorf("no part of type %s in %q", want, types)
		}
	}
}

func TestAccountsHaveMailOfTheirOwn(t *testing.T) {
	b := start(t)
	if err := login(t, b, alice, nil).Delete("Junk").Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := login(t, b, "bob@example.test", nil).Select("Junk", nil).Wait(); err != nil {
		t.Errorf("bob has lost what alice deleted: %v", err)
	}
	if _, err := login(t, b, alice, nil).Select("Junk", nil).Wait(); err == nil {
		t.Error("alice sees what she deleted")
	}
}

func TestIdleSeesAppend(t *testing.T) {
	b := start(t)
	news := make(chan uint32, 1)
	idler := login(t, b, alice, &imapclient.Options{UnilateralDataHandler: &imapclient.UnilateralDataHandler{
		Mailbox: func(data *imapclient.UnilateralDataMailbox) {
			if data.NumMessages != nil {
				news <- *data.NumMessages
			}
		},
	}})
	selected, err := idler.Select("INBOX", nil).Wait()
	if err != nil {
		t.Fatal(err)
	}
	idle, err := idler.Idle()
	if err != nil {
		t.Fatal(err)
	}
	appendMail(t, login(t, b, alice, nil), "INBOX")
	if got := <-news; got != selected.NumMessages+1 {
		t.Errorf("IDLE told of %d messages, want %d", got, selected.NumMessages+1)
	}
	if err := errors.Join(idle.Close(), idle.Wait()); err != nil {
		t.Error(err)
	}
}

func appendMail(t *testing.T, c *imapclient.Client, mailbox string) {
	t.Helper()
	message := "Subject: news\r\n\r\nHello\r\n"
	cmd := c.Append(mailbox, int64(len(message)), nil)
	cmd.Write([]byte(message))
	if err := cmd.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}

// Apps delete by MOVE to Trash.
func TestMoveTellsEachMessageOnce(t *testing.T) {
	b := start(t)
	expunged := make(chan uint32, 100)
	c := login(t, b, alice, &imapclient.Options{UnilateralDataHandler: &imapclient.UnilateralDataHandler{
		Expunge: func(seq uint32) { expunged <- seq },
	}})
	selected, err := c.Select("INBOX", nil).Wait()
	if err != nil {
		t.Fatal(err)
	}
	moved, err := c.Move(imap.SeqSetNum(2, selected.NumMessages), "Trash").Wait()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := moved.DestUIDs.String(), "1:2"; got != want {
		t.Errorf("moved to UIDs %s, want %s", got, want)
	}
	close(expunged)
	var got []uint32
	for seq := range expunged {
		got = append(got, seq)
	}
	if want := []uint32{selected.NumMessages, 2}; !slices.Equal(got, want) {
		t.Errorf("EXPUNGE of %v, want %v", got, want)
	}
	if err := c.Noop().Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Move(imap.UIDSetNum(1), "Nowhere").Wait(); err == nil {
		t.Error("moved to a mailbox that is not there")
	}
}

// go-imap's server ends such a connection; routes to it must not send ID.
func TestIDBeforeLoginEndsTheConnection(t *testing.T) {
	b := start(t)
	c := dialIMAP(t, b, nil)
	if _, err := c.ID(nil).Wait(); err == nil {
		t.Error("ID was accepted; Quirks.NoClientID is not needed any more")
	}
}
