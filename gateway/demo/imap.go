package demo

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"fmt"
	"log"
	"net"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
	"github.com/emersion/go-sasl"
)

const (
	// maxMessage is the largest message that APPEND takes, in bytes: everything is kept in memory.
	maxMessage = 20 << 20
	// idlePoll is how often a session in IDLE looks for news.
	idlePoll = 200 * time.Millisecond
)

// mailboxes are made for every account. The library keeps no special uses (RFC 6154), but apps know these names.
var mailboxes = []string{"Archive", "Drafts", "INBOX", "Junk", "Sent", "Trash"}

var imapCaps = imap.CapSet{
	imap.CapIMAP4rev1:  {},
	imap.CapNamespace:  {},
	imap.CapUIDPlus:    {},
	imap.CapESearch:    {},
	imap.CapListStatus: {},
	imap.CapMove:       {},
	imap.CapStatusSize: {},
}

// imapServer is go-imap's server over its memory store. What it adds is the login on somebody's behalf.
type imapServer struct {
	*imapserver.Server
	ln       net.Listener
	authcid  string
	password []byte

	mu    sync.Mutex // guards users
	users map[string]*imapmemserver.User
}

func startIMAP(ln net.Listener, authcid string, password []byte, errorLog *log.Logger) *imapServer {
	s := &imapServer{ln: ln, authcid: authcid, password: password, users: make(map[string]*imapmemserver.User)}
	s.Server = imapserver.New(&imapserver.Options{
		Caps:         imapCaps,
		InsecureAuth: true, // loopback
		Logger:       errorLog,
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return &imapSession{server: s}, nil, nil
		},
	})
	go s.Serve(ln) // ends with close
	return s
}

// close also closes the listener itself: the library knows it only once Serve has begun.
func (s *imapServer) close() error {
	err := s.Close()
	if lnErr := s.ln.Close(); !errors.Is(lnErr, net.ErrClosed) {
		err = errors.Join(err, lnErr)
	}
	return err
}

// user returns an account's mail. At its first login it gets the samples.
func (s *imapServer) user(address string) (*imapmemserver.User, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.users[address]; u != nil {
		return u, nil
	}
	u := imapmemserver.NewUser(address, "")
	if err := fill(u, newSamples(address)); err != nil {
		return nil, fmt.Errorf("make the sample mail: %w", err)
	}
	s.users[address] = u
	return u, nil
}

func fill(u *imapmemserver.User, s *samples) error {
	for _, name := range mailboxes {
		if err := errors.Join(u.Create(name, nil), u.Subscribe(name)); err != nil {
			return err
		}
	}
	mails, err := s.mails()
	if err != nil {
		return err
	}
	for _, m := range mails {
		if _, err := u.Append(m.mailbox, bytes.NewReader(m.raw), &imap.AppendOptions{Flags: m.flags, Time: m.date}); err != nil {
			return err
		}
	}
	return nil
}

// imapSession is one connection.
type imapSession struct {
	*imapmemserver.UserSession // nil before login
	server                     *imapServer
}

var (
	_ imapserver.SessionSASL        = (*imapSession)(nil)
	_ imapserver.SessionMove        = (*imapSession)(nil)
	_ imapserver.SessionAppendLimit = (*imapSession)(nil)
)

// Login refuses the LOGIN command, which can't name the account.
func (s *imapSession) Login(string, string) error { return imapserver.ErrAuthFailed }

func (s *imapSession) AuthenticateMechanisms() []string { return []string{sasl.Plain} }

func (s *imapSession) Authenticate(mechanism string) (sasl.Server, error) {
	if mechanism != sasl.Plain {
		return nil, &imap.Error{Type: imap.StatusResponseTypeNo, Code: imap.ResponseCodeCannot, Text: "Unknown mechanism"}
	}
	return sasl.NewPlainServer(s.authenticate), nil
}

func (s *imapSession) authenticate(authzid, authcid, password string) error {
	known := subtle.ConstantTimeCompare([]byte(authcid), []byte(s.server.authcid))
	right := subtle.ConstantTimeCompare([]byte(password), s.server.password)
	if known&right != 1 {
		return imapserver.ErrAuthFailed
	}
	if authzid == "" { // the master user has no mail of its own
		return &imap.Error{
			Type: imap.StatusResponseTypeNo,
			Code: imap.ResponseCodeAuthorizationFailed,
			Text: "Name the account as authzid",
		}
	}
	u, err := s.server.user(authzid)
	if err != nil {
		return err
	}
	s.UserSession = imapmemserver.NewUserSession(u)
	return nil
}

func (s *imapSession) AppendLimit() uint32 { return maxMessage }

// Move copies and deletes. The library's own tells each message's going twice, the first time with a wrong number: it asks
// for the number that the client knows after it has noted the going (imapmemserver, v2.0.0-beta.8).
func (s *imapSession) Move(w *imapserver.MoveWriter, which imap.NumSet, dest string) error {
	copied, err := s.Copy(which, dest)
	if err != nil || len(copied.SourceUIDs) == 0 {
		return err
	}
	if err := w.WriteCopyData(copied); err != nil {
		return err
	}
	moved := copied.SourceUIDs
	deleted := &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}, Silent: true}
	if err := s.Store(nil, moved, deleted, nil); err != nil { // silent: nothing is written
		return err
	}
	return s.Expunge(nil, &moved) // the server tells of it before it answers
}

// Idle looks for news itself. The library's own starts to listen after it has told the client that it idles, and forgets
// what came before: a message that arrives then is told only when IDLE ends.
func (s *imapSession) Idle(w *imapserver.UpdateWriter, stop <-chan struct{}) error {
	tick := time.NewTicker(idlePoll)
	defer tick.Stop()
	for {
		if err := s.Poll(w, true); err != nil {
			return err
		}
		select {
		case <-stop:
			return nil
		case <-tick.C:
		}
	}
}
