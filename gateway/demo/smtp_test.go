package demo

import (
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

func TestSending(t *testing.T) {
	arrived := make(chan Mail, 1)
	b, err := Start(slog.New(slog.DiscardHandler), func(m Mail) { arrived <- m })
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	c, err := smtp.Dial(b.SMTPAddress)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const message = "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nhello\r\n"
	to := []string{alice, "bob@example.test"}
	if err := c.SendMail(alice, to, strings.NewReader(message)); err == nil {
		t.Error("it takes mail without a login")
	}
	c.Reset()
	if err := c.Auth(sasl.NewPlainClient(alice, b.MasterUser, "wrong")); err == nil {
		t.Error("it takes a wrong password")
	}
	if err := c.Auth(sasl.NewPlainClient(alice, b.MasterUser, string(b.MasterPassword))); err != nil {
		t.Fatal(err)
	}
	if err := c.SendMail(alice, to, strings.NewReader(message)); err != nil {
		t.Fatal(err)
	}
	m := <-arrived
	if m.From != alice || !slices.Equal(m.To, to) || string(m.Raw) != message {
		t.Errorf("it shows %+v", m)
	}
	if text := m.Text(); !strings.Contains(text, "Grüße") || !strings.Contains(text, "alice@example.test bob@example.test") {
		t.Errorf("it shows %s", text)
	}
	mailbox, err := login(t, b, alice, nil).Status("INBOX", nil).Wait()
	if err != nil || mailbox.Mailbox != "INBOX" {
		t.Errorf("the INBOX: %+v, %v", mailbox, err)
	}
}

func TestMailTextShowsNoControls(t *testing.T) {
	m := Mail{From: "a\x1b[2J", To: []string{"b\n\nc\u009b2J\u202e"}, Raw: []byte("Subject: =?utf-8?q?=1b]0;x=07?= " + strings.Repeat("x", 200) + "\r\n\r\n")}
	text := m.Text()
	if strings.ContainsAny(text, "\x1b\x07\u009b\u202e") || strings.Count(text, "\n") != 5 {
		t.Errorf("it shows %q", text)
	}
}
