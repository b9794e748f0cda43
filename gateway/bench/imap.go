package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"
)

// IMAP is what the runs against an IMAP server share.
type IMAP struct {
	Target      *Target
	Load        Load
	Mechanism   Mechanism
	Credentials []Credential // taken in turn
}

func (o *IMAP) credential(n int) Credential { return o.Credentials[n%len(o.Credentials)] }

func (o *IMAP) result(name string, m *Measured) *Result {
	r := newResult(name, o.Target, o.Load, m)
	r.Mechanism = o.Mechanism
	return r
}

// open connects and logs in.
func (o *IMAP) open(ctx context.Context, cfg *tls.Config, c Credential) (*session, error) {
	s, err := openIMAP(ctx, o.Target, cfg)
	if err != nil {
		return nil, err
	}
	if err := s.logIn(o.Mechanism, c); err != nil {
		s.close()
		return nil, fmt.Errorf("log in as %s: %w", c, err)
	}
	return s, nil
}

// Login measures logins: connect, TLS, greeting, login, close.
func Login(ctx context.Context, o IMAP) (*Result, error) {
	var resumed resumptions
	m, err := o.Load.run(ctx, o.Target.Processes, o.logins(&resumed))
	if err != nil {
		return nil, err
	}
	r := o.result("login", m)
	if o.Target.Resume {
		r.Resumed = resumed.share()
	}
	return r, nil
}

// logins is a client that logs in again and again, with each credential in turn.
type logins struct {
	ctx        context.Context
	o          *IMAP
	cfg        *tls.Config
	next, done int
	resumed    *resumptions
}

func (o *IMAP) logins(resumed *resumptions) maker {
	return func(ctx context.Context, n int) (worker, error) {
		return &logins{ctx: ctx, o: o, cfg: o.Target.clientTLS(), next: n, resumed: resumed}, nil
	}
}

func (l *logins) once() (int64, error) {
	s, err := l.o.open(l.ctx, l.cfg, l.o.credential(l.next))
	if err != nil {
		return 0, err
	}
	defer s.close()
	l.next += l.o.Load.Workers
	if l.done++; l.done > 1 {
		l.resumed.note(s.nc)
	}
	return s.received, nil
}

func (l *logins) close() {}

// commands is a session that sends the same command again and again.
type commands struct {
	*session
	text string
}

func (c *commands) once() (int64, error) {
	before := c.received
	err := c.command(c.text)
	return c.received - before, err
}

// NOOP measures round trips in open sessions, one for each worker.
func NOOP(ctx context.Context, o IMAP) (*Result, error) {
	m, err := o.Load.run(ctx, o.Target.Processes, func(ctx context.Context, n int) (worker, error) {
		s, err := o.open(ctx, o.Target.clientTLS(), o.credential(n))
		if err != nil {
			return nil, err
		}
		return &commands{s, "NOOP"}, nil
	})
	if err != nil {
		return nil, err
	}
	return o.result("noop", m), nil
}

// FetchOptions say which message is fetched.
type FetchOptions struct {
	Mailbox string
	Message int // its sequence number
}

// Fetch measures reading a message in open sessions, one for each worker.
func Fetch(ctx context.Context, o IMAP, f FetchOptions) (*Result, error) {
	m, err := o.Load.run(ctx, o.Target.Processes, func(ctx context.Context, n int) (worker, error) {
		s, err := o.open(ctx, o.Target.clientTLS(), o.credential(n))
		if err != nil {
			return nil, err
		}
		if err := s.command("EXAMINE " + quote(f.Mailbox)); err != nil {
			s.close()
			return nil, err
		}
		return &commands{s, fmt.Sprintf("FETCH %d BODY.PEEK[]", f.Message)}, nil
	})
	if err != nil {
		return nil, err
	}
	if m.Received < int64(m.Operations)*64 {
		return nil, fmt.Errorf("mailbox %q has no message %d, or an empty one", f.Mailbox, f.Message)
	}
	r := o.result("fetch", m)
	r.Message = f.Message
	r.transferred(m.Received)
	return r, nil
}

// IdleOptions say how long sessions are left alone before they are weighed.
type IdleOptions struct{ Settle time.Duration }

// maxSettle bounds it.
const maxSettle = 10 * time.Minute

// Idle weighs sessions: Load.Count of them, opened Load.Workers at a time within Load.Duration, each waiting in IDLE (RFC 2177).
func Idle(ctx context.Context, o IMAP, i IdleOptions) (*Result, error) {
	if i.Settle < 0 || i.Settle > maxSettle {
		return nil, fmt.Errorf("%v is no time to wait before weighing: at most %v", i.Settle, maxSettle)
	}
	if err := o.warm(ctx); err != nil {
		return nil, err
	}
	before, err := o.Target.Processes.usageWithMemory()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	sessions, err := o.openIdle(ctx)
	defer func() {
		for _, s := range sessions {
			s.close()
		}
	}()
	if err != nil {
		return nil, err
	}
	took := time.Since(began)
	pause(ctx, i.Settle)
	after, err := o.Target.Processes.usageWithMemory()
	if err := errors.Join(err, ctx.Err(), wake(sessions)); err != nil {
		return nil, err
	}
	r := o.result("idle", &Measured{Operations: len(sessions), Seconds: took.Seconds()})
	r.weighed(before, after)
	return r, nil
}

// warm opens and closes sessions, so that what a server makes once is not taken for a session's.
func (o *IMAP) warm(ctx context.Context) error {
	l := Load{Workers: min(8, o.Load.Workers), Count: 64, Duration: opTimeout}
	_, err := l.run(ctx, nil, o.logins(new(resumptions)))
	time.Sleep(time.Second) // for what has ended to be cleared away
	return err
}

// openIdle opens all sessions; those that are open are returned with the error too.
func (o *IMAP) openIdle(ctx context.Context) ([]*session, error) {
	opening, cancel := context.WithTimeout(ctx, o.Load.Duration)
	defer cancel()
	sessions := make([]*session, o.Load.Count)
	errs := make([]error, o.Load.Count)
	cfg := o.Target.clientTLS()
	each(o.Load.Workers, o.Load.Count, func(n int) {
		if errs[n] = opening.Err(); errs[n] == nil {
			sessions[n], errs[n] = o.idle(ctx, cfg, n)
		}
		if errs[n] != nil {
			cancel()
		}
	})
	var open []*session
	for _, s := range sessions {
		if s != nil {
			open = append(open, s)
		}
	}
	for _, err := range errs {
		if err != nil {
			return open, fmt.Errorf("%d of %d sessions were open: %w", len(open), o.Load.Count, err)
		}
	}
	return open, nil
}

// wake ends IDLE in all sessions: those that did not live to be weighed would make the others seem light.
func wake(sessions []*session) error {
	errs := make([]error, len(sessions))
	each(16, len(sessions), func(n int) { errs[n] = sessions[n].done() })
	for n, err := range errs {
		if err != nil {
			return fmt.Errorf("session %d of %d had ended when it was weighed: %w", n+1, len(sessions), err)
		}
	}
	return nil
}

func (o *IMAP) idle(ctx context.Context, cfg *tls.Config, n int) (*session, error) {
	s, err := o.open(ctx, cfg, o.credential(n))
	if err != nil {
		return nil, err
	}
	if err := s.idle(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}
