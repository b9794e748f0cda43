package demo

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log"
	"mime"
	"net"
	"net/mail"
	"strings"
	"time"
	"unicode"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// Mail is a message that an app has sent.
type Mail struct {
	From string   // as the SMTP dialogue names them
	To   []string //
	Raw  []byte
}

// Text shows a message on a few lines: up to 80 columns of what is in it.
func (m Mail) Text() string {
	const most = 78
	var b strings.Builder
	line := func(s string) {
		s = strings.Map(func(r rune) rune {
			if !unicode.IsPrint(r) {
				return -1
			}
			return r
		}, s)
		if runes := []rune(s); len(runes) > most {
			s = string(runes[:most]) + "…"
		}
		b.WriteString("  " + s + "\n")
	}
	fmt.Fprintf(&b, "\nA message arrived, %d bytes.\n", len(m.Raw))
	line("from     " + m.From)
	line("to       " + strings.Join(m.To, " "))
	if parsed, err := mail.ReadMessage(bytes.NewReader(m.Raw)); err == nil {
		subject := parsed.Header.Get("Subject")
		if decoded, err := new(mime.WordDecoder).DecodeHeader(subject); err == nil {
			subject = decoded
		}
		line("subject  " + subject)
	}
	return b.String()
}

// smtpServer is go-smtp's server. It takes every message. Those to an account arrive in its INBOX, others go nowhere.
type smtpServer struct {
	*smtp.Server
	ln       net.Listener
	authcid  string
	password []byte
	imap     *imapServer
	arrived  func(Mail)
}

const (
	smtpTimeout   = 5 * time.Minute // RFC 5321 section 4.5.3.2.7
	maxRecipients = 100
)

func startSMTP(ln net.Listener, authcid string, password []byte, imap *imapServer, arrived func(Mail), errorLog *log.Logger) *smtpServer {
	s := &smtpServer{ln: ln, authcid: authcid, password: password, imap: imap, arrived: arrived}
	s.Server = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &smtpSession{server: s}, nil }))
	s.Domain, s.AllowInsecureAuth, s.ErrorLog = "localhost", true, errorLog // loopback
	s.MaxMessageBytes, s.MaxRecipients, s.EnableSMTPUTF8 = maxMessage, maxRecipients, true
	s.ReadTimeout, s.WriteTimeout = smtpTimeout, smtpTimeout
	go s.Serve(ln) // ends with close
	return s
}

// close also closes the listener itself: the library knows it only once Serve has begun.
func (s *smtpServer) close() error {
	err := s.Close()
	if errors.Is(err, smtp.ErrServerClosed) {
		err = nil
	}
	if lnErr := s.ln.Close(); !errors.Is(lnErr, net.ErrClosed) {
		err = errors.Join(err, lnErr)
	}
	return err
}

// smtpSession is one connection.
type smtpSession struct {
	server  *smtpServer
	account string // empty before the login
	mail    Mail
}

var _ smtp.AuthSession = (*smtpSession)(nil)

func (s *smtpSession) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *smtpSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(s.authenticate), nil
}

func (s *smtpSession) authenticate(authzid, authcid, password string) error {
	known := subtle.ConstantTimeCompare([]byte(authcid), []byte(s.server.authcid))
	right := subtle.ConstantTimeCompare([]byte(password), s.server.password)
	if known&right != 1 || authzid == "" {
		return smtp.ErrAuthFailed
	}
	s.account = authzid
	_, err := s.server.imap.user(authzid) // its mailbox, for what it sends to itself
	return err
}

func (s *smtpSession) Mail(from string, _ *smtp.MailOptions) error {
	if s.account == "" {
		return smtp.ErrAuthRequired
	}
	s.mail.From = from
	return nil
}

func (s *smtpSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.mail.To = append(s.mail.To, to)
	return nil
}

func (s *smtpSession) Data(r io.Reader) error {
	var err error
	if s.mail.Raw, err = io.ReadAll(r); err != nil {
		return err
	}
	for _, to := range s.mail.To {
		if err := s.server.imap.deliver(to, s.mail.Raw); err != nil {
			return err
		}
	}
	s.server.arrived(s.mail)
	return nil
}

func (s *smtpSession) Reset() { s.mail = Mail{} }

func (s *smtpSession) Logout() error { return nil }

// deliver puts a message into the INBOX of an account that has logged in before; nothing happens for others.
func (s *imapServer) deliver(address string, raw []byte) error {
	s.mu.Lock()
	u := s.users[strings.ToLower(address)]
	s.mu.Unlock()
	if u == nil {
		return nil
	}
	_, err := u.Append("INBOX", bytes.NewReader(raw), &imap.AppendOptions{Time: time.Now()})
	return err
}
