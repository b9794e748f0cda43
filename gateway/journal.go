package gateway

import (
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
	attrs := append(facts(e.Facts), "mechanism", e.Mechanism, "code", ops.Outcome(e.Err))
	attrs = append(attrs, who(e.Grant)...)
	if r, ok := errors.AsType[*authstore.Refusal](e.Err); ok && e.Grant.Account == 0 {
		attrs = append(attrs, who(authstore.Grant{Account: r.Account, Password: r.Password})...)
	}
	if e.Domain != "" && j.ours(e.Domain) {
		attrs = append(attrs, "domain", e.Domain)
	}
	attrs = append(attrs, way(e.Facts)...)
	attrs = append(attrs, "dur", e.Duration.Round(time.Microsecond).String())
	if e.Err == nil {
		j.log.Info("login", attrs...)
		return
	}
	if cause := cause(e.Err); cause != nil {
		attrs = append(attrs, "err", cause)
	}
	if needsSomebody(e.Err) {
		j.log.Warn("login", attrs...)
		return
	}
	j.log.Info("login", attrs...)
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
	attrs := append(facts(e.Facts), who(e.Grant)...)
	attrs = append(attrs, way(e.Facts)...)
	j.log.Info("session ended", append(attrs, "reason", e.Reason,
		"dur", e.Duration.Round(time.Millisecond).String(), "up", e.Up, "down", e.Down)...)
}

func facts(f protocols.Facts) []any {
	return []any{"conn", f.Conn, "proto", f.Protocol, "client", f.Client.Addr()}
}

// way is where a client's login was led, and by which app.
func way(f protocols.Facts) []any {
	var attrs []any
	if f.Backend != "" {
		attrs = append(attrs, "backend", f.Backend)
	}
	if f.App != "" {
		attrs = append(attrs, "app", f.App[:min(len(f.App), maxApp)])
	}
	return attrs
}

func who(g authstore.Grant) []any {
	var attrs []any
	if g.Account != 0 {
		attrs = append(attrs, "account", g.Account)
	}
	if g.Password != 0 {
		attrs = append(attrs, "app_password", g.Password)
	}
	return attrs
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
	r, ok := errors.AsType[*authstore.Refusal](err)
	return !ok || r.Code == authstore.Unavailable
}
