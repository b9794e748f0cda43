// Package notice tells people by mail what happened to their account. It takes from the outbox what the store put there in the transaction
// of the event itself, and hands it to a mail server: so a notice survives a crash, and nobody who changes something waits for mail. A mail
// may come twice, with the same Message-ID; none is lost while the server takes it within a week.
package notice

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	netmail "net/mail"
	"strings"
	"time"

	"postern/authstore"
	"postern/gateway/place"
)

// Outbox holds the notices that wait. In production it is a sqlstore.Store.
type Outbox interface {
	// TakeNotices takes at most n that are due and puts them off until a time, so that no other process sends them meanwhile.
	TakeNotices(ctx context.Context, n int, until time.Time) ([]authstore.Notice, error)
	NoticeDone(ctx context.Context, event int64) error
	NoticeFailed(ctx context.Context, event int64, next time.Time, refused bool) error
}

// TLS is how the connection to the mail server is protected.
type TLS int

// The ways.
const (
	Implicit TLS = iota // from the first byte
	StartTLS            // after STARTTLS, which must be offered
	Plain               // not at all
)

// Options of a Sender.
type Options struct {
	Outbox    Outbox
	Epoch     string // the store's, for Message-IDs
	Address   string // of the mail server, host:port
	TLS       TLS
	TLSConfig *tls.Config            // with the server's name; unused where TLS is Plain
	User      string                 // empty: no login
	Password  func() ([]byte, error) // read for each login, so that it may change; the sender clears it
	From      string                 // an address, with a name before it or not
	Site      string                 // the portal's URL; empty: there is none
	Places    *place.Atlas           // nil: mails name addresses only
	Observe   func(outcome string)   // told of each attempt: "sent", "failed", "given_up"; nil: nobody is
	Log       *slog.Logger
}

// Sender sends the notices. Run must run.
type Sender struct {
	o    Options
	from *netmail.Address
	host string // From's domain: the last part of Message-IDs, and what the server is greeted with

	poll        time.Duration // how often the outbox is looked at: mail comes soon, and looking costs next to nothing
	retry       time.Duration // until a mail that was not taken is tried again, the first time
	longest     time.Duration // and at most
	down        time.Duration // until a server that does not answer is tried again, at most: one attempt is for all mails
	attemptTime time.Duration // for one mail, from connecting on
}

const (
	// takenFor is how long a notice is kept from others. It is more than an attempt can last.
	takenFor = 10 * time.Minute
	// givenUpAfter is the age at which a notice that can't be sent is news no more.
	givenUpAfter = 7 * 24 * time.Hour
	// maxRefused is how often a mail is tried that the server refuses for good.
	maxRefused = 5
	// writeTime bounds a write to the outbox.
	writeTime = 10 * time.Second
)

// New checks the options.
func New(o Options) (*Sender, error) {
	from, err := netmail.ParseAddress(o.From)
	if err != nil {
		return nil, fmt.Errorf("from %q is not a mail address: %w", o.From, err)
	}
	if _, _, err := net.SplitHostPort(o.Address); err != nil {
		return nil, fmt.Errorf("address %q is not host:port", o.Address)
	}
	if o.Observe == nil {
		o.Observe = func(string) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	host := from.Address[strings.LastIndexByte(from.Address, '@')+1:]
	return &Sender{o: o, from: from, host: host, poll: 2 * time.Second, retry: time.Minute, longest: time.Hour, down: 10 * time.Minute, attemptTime: 3 * time.Minute}, nil
}

// Run sends until ctx ends, one mail after the other. What is under way then is cut off, and sent again by the next Run.
func (s *Sender) Run(ctx context.Context) {
	deaf := 0           // attempts in a row that got no answer
	unreadable := false // the outbox, and that was said
	for ctx.Err() == nil {
		list, err := s.o.Outbox.TakeNotices(ctx, 1, time.Now().Add(takenFor))
		if err != nil && !unreadable && ctx.Err() == nil {
			s.o.Log.Warn("the outbox of notices can't be read", "err", err)
		}
		unreadable = err != nil
		if len(list) == 0 {
			pause(ctx, s.poll)
			continue
		}
		wait := backOff(s.retry, s.down, deaf)
		if s.handle(ctx, &list[0], wait) {
			deaf = 0
			continue
		}
		deaf++
		pause(ctx, wait)
	}
}

// handle sends a notice and writes down how it went. False: the server did not answer, and would not answer for another one either; all
// of them wait then.
func (s *Sender) handle(ctx context.Context, n *authstore.Notice, wait time.Duration) (answered bool) {
	log := s.o.Log.With("event", n.ID, "kind", n.Kind, "account", n.Account)
	if n.Address == "" { // nobody is left to tell
		log.Info("notice given up: its account is gone")
		s.done(ctx, log, n)
		return true
	}
	err := s.send(ctx, n)
	if err == nil {
		log.Info("notice sent")
		s.o.Observe("sent")
		s.done(ctx, log, n)
		return true
	}
	if ctx.Err() != nil { // we stop; who starts next takes it when its time is over
		return false
	}
	refused, answered := errors.AsType[*refusal](err)
	if time.Since(n.At) > givenUpAfter || answered && refused.forGood && n.Refusals+1 >= maxRefused {
		log.Error("notice given up: it was never sent", "err", err)
		s.o.Observe("given_up")
		s.done(ctx, log, n)
		return answered
	}
	if answered {
		wait = backOff(s.retry, s.longest, n.Refusals)
	}
	log.Warn("notice not sent; it is tried again", "in", wait.Round(time.Second).String(), "err", err)
	s.o.Observe("failed")
	s.write(ctx, log, func(ctx context.Context) error {
		return s.o.Outbox.NoticeFailed(ctx, n.ID, time.Now().Add(wait), answered)
	})
	return answered
}

func (s *Sender) done(ctx context.Context, log *slog.Logger, n *authstore.Notice) {
	s.write(ctx, log, func(ctx context.Context) error { return s.o.Outbox.NoticeDone(ctx, n.ID) })
}

// write writes though ctx has ended, or a mail that was sent would be sent again.
func (s *Sender) write(ctx context.Context, log *slog.Logger, do func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTime)
	defer cancel()
	if err := do(ctx); err != nil {
		log.Warn("how a notice went can't be written; it may be sent again", "err", err)
	}
}

// backOff doubles from the first time to the longest, give or take a fifth, so that several processes do not go in step.
func backOff(first, longest time.Duration, failures int) time.Duration {
	d := longest
	if failures < 20 {
		d = min(first<<failures, longest)
	}
	return d - d/5 + rand.N(2*d/5+1)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
