package notice

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"

	"postern/authstore"
)

// refusal is the mail server's answer to one mail. Any other error means that it gave none, and that another mail would fare no better.
type refusal struct {
	forGood bool // this mail, to this recipient: 5xx
	text    string
}

func (r *refusal) Error() string { return r.text }

// send hands a notice to the mail server, over a connection of its own: there are few, and none suffers from the one before.
func (s *Sender) send(ctx context.Context, n *authstore.Notice) error {
	m, err := s.message(n)
	if err != nil {
		return &refusal{forGood: true, text: err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, s.attemptTime)
	defer cancel()
	line, err := s.connect(ctx)
	if err != nil {
		return told(err)
	}
	defer line.Close()
	defer context.AfterFunc(ctx, func() { line.Close() })() // go-mail watches its own deadlines only

	c, err := s.client(line, n.Address)
	if err != nil {
		return told(err)
	}
	if err := c.DialWithContext(ctx); err != nil { // the greeting, STARTTLS and the login
		return told(err)
	}
	err = c.Send(m)
	if m.IsDelivered() { // whatever came behind the server's 250
		c.Close()
		return nil
	}
	if e, ok := errors.AsType[*mail.SendError](err); ok && e.ErrorCode() >= 400 {
		return &refusal{forGood: e.ErrorCode() >= 500 && e.Reason != mail.ErrSMTPMailFrom, text: told(err).Error()} // a wrong sender is ours, and will be mended
	}
	return told(err)
}

// connect opens the line itself, because go-mail leaves one open whose greeting fails.
func (s *Sender) connect(ctx context.Context) (net.Conn, error) {
	nc, err := (&net.Dialer{Timeout: s.attemptTime / 3}).DialContext(ctx, "tcp", s.o.Address)
	if err != nil || s.o.TLS != Implicit {
		return nc, err
	}
	tc := tls.Client(nc, s.o.TLSConfig)
	if err := tc.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, err
	}
	return tc, nil
}

// client makes go-mail's client over a line that is there.
func (s *Sender) client(line net.Conn, to string) (*mail.Client, error) {
	host, port, _ := net.SplitHostPort(s.o.Address) // New has looked
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, fmt.Errorf("port %q is no number", port)
	}
	options := []mail.Option{mail.WithPort(number), mail.WithTimeout(s.attemptTime), mail.WithHELO(s.host), mail.WithoutNoop(), mail.WithoutRset(),
		mail.WithDialContextFunc(func(context.Context, string, string) (net.Conn, error) { return line, nil })}
	if s.o.TLS == StartTLS {
		options = append(options, mail.WithTLSPolicy(mail.TLSMandatory), mail.WithTLSConfig(s.o.TLSConfig))
	} else {
		options = append(options, mail.WithTLSPolicy(mail.NoTLS)) // or it is there already
	}
	if !strings.ContainsFunc(to+s.from.Address, func(r rune) bool { return r > unicode.MaxASCII }) {
		options = append(options, mail.WithoutSMTPUTF8()) // else go-mail asks for it wherever it is offered, and a server further on may not have it
	}
	if s.o.User != "" {
		password, err := s.o.Password()
		if err != nil {
			return nil, err
		}
		options = append(options, mail.WithSMTPAuthCustom(&login{user: s.o.User, password: string(password), host: host, plain: s.o.TLS == Plain}))
		clear(password)
	}
	return mail.NewClient(host, options...)
}

// login logs in with PLAIN, or with LOGIN where a server has nothing better.
type login struct {
	smtp.Auth
	user, password, host string
	plain                bool // the administrator wants it without TLS
}

func (l *login) Start(server *smtp.ServerInfo) (string, []byte, error) {
	l.Auth = smtp.PlainAuth("", l.user, l.password, l.host, l.plain)
	if !slices.Contains(server.Auth, "PLAIN") && slices.Contains(server.Auth, "LOGIN") {
		l.Auth = smtp.LoginAuth(l.user, l.password, l.host, l.plain)
	}
	return l.Auth.Start(server)
}

// told makes an error of the library's or the server's words short and printable.
func told(err error) error {
	const most = 300
	text := strings.ToValidUTF8(err.Error(), "?")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return errors.New(clean(text))
}

// clean makes what others wrote one printable line. Nothing in it changes the direction of what follows, or becomes a link by itself.
func clean(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	return strings.Join(strings.Fields(text), " ")
}
