package gateway

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"postern/authstore"
	"postern/gateway/ops"
	"postern/protocols"
)

// journal writes the log line of each login and ended session, in a form that we promise not to change (docs/operation.md),
// and counts them.
type journal struct {
	*ops.Metrics
	log *slog.Logger
	// ours tells whether a domain is one of ours: only then a refused name's domain is logged. A name that belongs to no
	// account may be a password typed into the wrong field.
	ours func(domain string) bool

	throttled atomic.Int64 // refusals not logged yet
	told      atomic.Int64 // when some were, in Unix seconds
}

var _ protocols.Observer = (*journal)(nil)

// maxApp bounds what a client's own name may take of a log line, in bytes.
const maxApp = 64

func (j *journal) Login(e protocols.LoginEvent) {
	j.Metrics.Login(e)
	if r, ok := errors.AsType[*authstore.Refusal](e.Err); ok && r.Code == authstore.Throttled {
		j.throttle(e.Facts)
		return
	}
	var l line
	l.facts(e.Facts)
	l.text("mechanism", e.Mechanism)
	l.text("code", ops.Outcome(e.Err))
	l.who(e.Grant.Account, e.Grant.Password)
	if r, ok := errors.AsType[*authstore.Refusal](e.Err); ok && e.Grant.Account == 0 {
		l.who(r.Account, r.Password)
	}
	if e.Domain != "" && j.ours(e.Domain) {
		l.text("domain", e.Domain)
	}
	l.way(e.Facts)
	l.text("dur", e.Duration.Round(time.Microsecond).String())
	level := slog.LevelInfo
	if e.Err != nil {
		if cause := cause(e.Err); cause != nil {
			l.add(slog.Any("err", cause))
		}
		if needsSomebody(e.Err) {
			level = slog.LevelWarn
		}
	}
	j.log.LogAttrs(context.Background(), level, "login", l.attrs()...)
}

// throttle logs what is refused without a look, at most one line in a minute: somebody may try thousands of times in a second.
func (j *journal) throttle(f protocols.Facts) {
	n, now, last := j.throttled.Add(1), time.Now().Unix(), j.told.Load()
	if now-last >= 60 && j.told.CompareAndSwap(last, now) {
		j.throttled.Add(-n)
		j.log.Info("logins throttled", "proto", f.Protocol, "client", f.Client.Addr(), "count", n)
	}
}

func (j *journal) Ended(e protocols.EndEvent) {
	j.Metrics.Ended(e)
	var l line
	l.facts(e.Facts)
	l.who(e.Grant.Account, e.Grant.Password)
	l.way(e.Facts)
	l.text("reason", e.Reason)
	l.text("dur", e.Duration.Round(time.Millisecond).String())
	l.add(slog.Int64("up", e.Up))
	l.add(slog.Int64("down", e.Down))
	j.log.LogAttrs(context.Background(), slog.LevelInfo, "session ended", l.attrs()...)
}

// line gathers attributes by their kinds: what slog has to look at by reflection costs a login a twentieth of its time.
type line struct {
	n    int
	list [16]slog.Attr
}

func (l *line) attrs() []slog.Attr { return l.list[:l.n] }

func (l *line) add(a slog.Attr) {
	l.list[l.n] = a
	l.n++
}

func (l *line) text(key, value string) { l.add(slog.String(key, value)) }

func (l *line) facts(f protocols.Facts) {
	l.text("conn", f.Conn)
	l.text("proto", f.Protocol)
	l.text("client", f.Client.Addr().String())
}

// way is where a client's login was led, and by which app.
func (l *line) way(f protocols.Facts) {
	if f.Backend != "" {
		l.text("backend", f.Backend)
	}
	if f.App != "" {
		l.text("app", f.App[:min(len(f.App), maxApp)])
	}
}

func (l *line) who(account authstore.AccountID, password authstore.PasswordID) {
	if account != 0 {
		l.add(slog.Int64("account", int64(account)))
	}
	if password != 0 {
		l.add(slog.Int64("app_password", int64(password)))
	}
}

// cause is what only the log may learn of a failed login; nil where the code says it all.
func cause(err error) error {
	if r, ok := errors.AsType[*authstore.Refusal](err); ok {
		return r.Cause
	}
	return err
}

// needsSomebody reports whether a failed login is our own fault rather than the client's.
func needsSomebody(err error) bool {
	switch ops.Outcome(err) {
	case authstore.Unavailable.String(), "backend", "too_many":
		return true
	}
	return false
}
