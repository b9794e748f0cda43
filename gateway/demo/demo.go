// Package demo is what `postern demo` puts behind the gateway: an IMAP server, an SMTP server that sends nothing anywhere, and a CalDAV
// and CardDAV server in this process, filled with sample mail, events and contacts, and a certificate authority of their own. All of it lives in
// memory, listens on loopback and lets in nobody but the gateway, with passwords made at each start. It is for a first look
// and for tests; `postern serve` refuses it.
package demo

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
)

// Backends are the running servers. They make an account's sample data when the gateway first logs in for it.
type Backends struct {
	// IMAPAddress is the IMAP server's host and port: plain text, AUTHENTICATE PLAIN with the account's address as authzid.
	// The server ends a connection on which it reads ID before login, so its route needs protocols.Quirks.NoClientID.
	IMAPAddress    string
	MasterUser     string
	MasterPassword []byte

	// SMTPAddress is the SMTP server's: plain text, AUTH PLAIN as above.
	SMTPAddress string

	// DAVAddress is the DAV server's host and port: plain HTTP, Basic with the account's address as user name. The principal
	// is /ADDRESS/, the home sets are /ADDRESS/calendars/ and /ADDRESS/contacts/.
	DAVAddress  string
	DAVPassword []byte

	imap *imapServer
	smtp *smtpServer
	dav  *davServer
}

// Start starts the servers on free ports of 127.0.0.1; they run until Close. What the servers' libraries complain
// about goes to log at debug level. arrived is told of each message that is sent, one at a time for each connection.
func Start(log *slog.Logger, arrived func(Mail)) (*Backends, error) {
	b := &Backends{
		MasterUser:     "postern",
		MasterPassword: []byte(rand.Text()),
		DAVPassword:    []byte(rand.Text()),
	}
	errorLog := slog.NewLogLogger(log.Handler(), slog.LevelDebug)

	mail, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start the demo's IMAP server: %w", err)
	}
	b.IMAPAddress = mail.Addr().String()
	b.imap = startIMAP(mail, b.MasterUser, b.MasterPassword, errorLog)

	sending, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the demo's SMTP server: %w", err), b.imap.close())
	}
	b.SMTPAddress = sending.Addr().String()
	b.smtp = startSMTP(sending, b.MasterUser, b.MasterPassword, b.imap, arrived, errorLog)

	dav, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the demo's DAV server: %w", err), b.imap.close(), b.smtp.close())
	}
	b.DAVAddress = dav.Addr().String()
	b.dav = startDAV(dav, b.DAVPassword, errorLog)
	return b, nil
}

// Close stops the servers, with all their connections. The data is gone with them.
func (b *Backends) Close() error { return errors.Join(b.imap.close(), b.smtp.close(), b.dav.close()) }
