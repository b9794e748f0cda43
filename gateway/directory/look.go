package directory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/go-ldap/ldap/v3"

	"postern/authstore"
	"postern/authstore/identity"
)

// actor stands in the history of what a look changes.
var actor = authstore.Actor{Name: "directory"}

// The reasons for which an account is suspended by a look, as the history has them.
const (
	WhyGone     = "gone"     // no entry has the subject any more
	WhyDisabled = "disabled" // the entry does not fit the filters any more
	WhyReused   = "reused"   // the entry has lost the address, and somebody else has it
)

const (
	batch     = 100              // subjects in one question
	lookTime  = 15 * time.Minute // the longest look
	leaseTime = 2 * time.Minute  // renewed with each batch
	maxNamed  = 20               // accounts that a report names
	maxNews   = 20_000           // people of whom one look takes something new in; the others are the next one's
	// erosion is the time within which losses are added up: a directory that is emptied slowly has lost its people too.
	erosion = time.Hour
	// alarmEvery is how often the log is told of the same trouble.
	alarmEvery = time.Hour
)

// Truth is where accounts are bound to people, and where looks are kept. It is an sqlstore.Store.
type Truth interface {
	Tied(ctx context.Context, issuer string, after authstore.AccountID, limit int) ([]identity.Tied, error)
	Lease(ctx context.Context, name, owner string, until time.Time) (bool, error)
	Look(ctx context.Context, issuer string) ([]byte, error)
	SetLook(ctx context.Context, issuer string, result []byte) error
}

// Report is what a look found. It is kept as JSON.
type Report struct {
	At       time.Time     `json:"at"`
	Took     time.Duration `json:"took" doc:"In nanoseconds"`
	Slowest  time.Duration `json:"slowest" doc:"The slowest question to the directory, in nanoseconds"`                         // question
	Accounts int           `json:"accounts" doc:"Accounts that are bound to people of the directory"`                           // that are bound to people of the directory
	Present  int           `json:"present" doc:"Of these, whose people are there and not disabled"`                             // of these, who are there and not disabled
	Lost     int           `json:"lost" doc:"Whose people were there, and are gone or disabled: suspended now"`                 // who were active, and are not there
	Back     int           `json:"back" doc:"Whose people are there again"`                                                     // who are there again
	Changed  int           `json:"changed" doc:"Whose primary password was changed there: their app passwords are revoked now"` // whose primary password was changed there
	Reused   int           `json:"reused" doc:"Of the lost, whose address is somebody else's"`                                  // of the lost, whose address is somebody else's
	Problem  string        `json:"problem,omitempty" doc:"Why nothing was changed"`
	Held     bool          `json:"held,omitempty" doc:"It answered well, and so many were lost or changed that it is not believed"` // it answered well, and so many were lost or changed that it is not believed
	Dry      bool          `json:"dry,omitempty" doc:"It was only looked at"`
	Named    []Named       `json:"named,omitempty" doc:"Some of those that something was or would be done about"` // some of those that something was or would be done about
	Renamed  []Named       `json:"renamed,omitempty" doc:"Some of those who have another address there"`          // some of those who have another address there

	Good      time.Time `json:"good" doc:"When a look counted last"`                                            // when the last look was one that counts
	Expected  int       `json:"expected" doc:"How many people were there then"`                                 // who were there then
	Since     time.Time `json:"since" doc:"From when on losses are added up"`                                   // from when on losses are added up
	SinceHad  int       `json:"since_had" doc:"How many people were there then, or later when there were more"` // likewise
	SinceLost int       `json:"since_lost" doc:"How many were lost from then on"`                               // who were lost from then on
}

// Named is an account that a report names.
type Named struct {
	Address string `json:"address"`
	What    string `json:"what" doc:"gone, disabled, reused, returned, changed, or the other address"` // one of the reasons, "returned", "changed", or the other address
}

// LookOptions change a look.
type LookOptions struct {
	DryRun bool // nothing is changed, and the report is not kept
	Accept bool // however many were lost
}

// Looker looks regularly whether the people whose accounts are bound to the directory are there still. Goroutines may share it.
type Looker struct {
	Directory *Directory
	Truth     Truth
	Accounts  *authstore.Accounts
	// Heed keeps what the directory says of an account: identity.People's.
	Heed    func(ctx context.Context, who authstore.Actor, id authstore.AccountID, c identity.Claims) (ended bool, err error)
	Owner   string               // names this process in the lease
	Observe func(outcome string) // "good", "failed", "held"; nil: nobody
	Log     *slog.Logger
	Now     func() time.Time // nil: time.Now
}

// ErrBusy says that another process looks now.
var ErrBusy = errors.New("another node looks into the directory now; try again in a minute")

// leaseName is what the lease is about.
const leaseName = "directory look"

func (k *Looker) now() time.Time {
	if k.Now == nil {
		return time.Now()
	}
	return k.Now()
}

// Run looks each time that every has passed since any node did, until ctx ends.
func (k *Looker) Run(ctx context.Context, every time.Duration) {
	alarmed, about := time.Time{}, ""
	for first := true; ; first = false {
		wait := every + rand.N(every/10+1)
		if first { // a start, or a reload, is no reason to look, but a long time since the last look is one
			wait = rand.N(min(every, 10*time.Second) + 1)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		last, err := k.Last(ctx)
		if err == nil && last != nil && k.now().Sub(last.At) < every-every/10 && !last.At.After(k.now()) {
			continue // another node has looked
		}
		report, err := k.Look(ctx, LookOptions{})
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, ErrBusy):
		case err != nil:
			k.Log.Warn("the directory was not looked into", "err", err)
		case report.Problem == "":
			about = ""
		case report.Problem != about || k.now().Sub(alarmed) >= alarmEvery:
			alarmed, about = k.now(), report.Problem
			k.Log.Error("the look into the directory changed nothing", "err", report.Problem, "accounts", report.Accounts, "lost", report.Lost, "changed", report.Changed)
		}
	}
}

// Last reads what the last look found; nil: there was none.
func (k *Looker) Last(ctx context.Context) (*Report, error) {
	text, err := k.Truth.Look(ctx, Issuer)
	if err != nil || text == nil {
		return nil, err
	}
	r := new(Report)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("read the last look: %w", err)
	}
	return r, nil
}

// Look compares all accounts that are bound to the directory with it. What is wrong with the directory is the report's Problem, and then nothing
// was changed; an error is our own: the database's, or ErrBusy.
func (k *Looker) Look(ctx context.Context, o LookOptions) (*Report, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	if !o.DryRun {
		if err := k.lease(ctx); err != nil {
			return nil, err
		}
		defer k.release(ctx)
	}
	last, err := k.Last(ctx)
	if err != nil {
		return nil, err
	}
	l := &look{Looker: k, began: k.now(), o: o, renew: k.now().Add(leaseTime / 2)}
	if last != nil {
		l.report.Good, l.report.Expected = last.Good, last.Expected
		l.report.Since, l.report.SinceHad, l.report.SinceLost = last.Since, last.SinceHad, last.SinceLost
	}
	l.report.At, l.report.Dry = l.began, o.DryRun
	if err := l.compare(ctx); err != nil {
		if p, ok := errors.AsType[*trouble](err); ok && context.Cause(ctx) != context.Canceled {
			l.report.Problem = k.Directory.explain(p.err).Error()
			return &l.report, l.finish(ctx, "failed")
		}
		return nil, err
	}
	if l.judge(); l.report.Held {
		return &l.report, l.finish(ctx, "held")
	}
	if !o.DryRun {
		if err := l.apply(ctx); err != nil {
			return nil, err
		}
	}
	return &l.report, l.finish(ctx, "good")
}

func (k *Looker) lease(ctx context.Context) error {
	ok, err := k.Truth.Lease(ctx, leaseName, k.Owner, k.now().Add(leaseTime))
	if err == nil && !ok {
		err = ErrBusy
	}
	return err
}

func (k *Looker) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	k.Truth.Lease(ctx, leaseName, k.Owner, k.now().Add(-time.Second))
}

// look is one look under way.
type look struct {
	*Looker
	o      LookOptions
	began  time.Time
	renew  time.Time // when the lease is
	report Report
	active int // accounts that are active
	lost   []loss
	back   []identity.Tied
	news   []news
}

type loss struct {
	identity.Tied
	why string
}

type news struct {
	identity.Tied
	claims identity.Claims
}

// trouble is an error of the directory's, not of ours.
type trouble struct{ err error }

func (t *trouble) Error() string { return t.err.Error() }
func (t *trouble) Unwrap() error { return t.err }

// compare goes over all accounts, and collects what differs. Nothing is changed yet.
func (l *look) compare(ctx context.Context) error {
	link, err := l.Directory.openIn(ctx)
	if err != nil {
		return &trouble{err}
	}
	defer link.close()
	if err := l.ask(ctx, func(ctx context.Context) error { return l.Directory.base(ctx, link, l.Directory.o.Base) }); err != nil {
		return err
	}
	for after := authstore.AccountID(0); ; {
		tied, err := l.Truth.Tied(ctx, Issuer, after, batch)
		if err != nil || len(tied) == 0 {
			return err
		}
		after = tied[len(tied)-1].Account
		if err := l.compareSome(ctx, link, tied); err != nil {
			return err
		}
		if err := l.keepLease(ctx); err != nil {
			return err
		}
	}
}

// ask asks the directory something, and then leaves it alone for as long as that took: others need it too.
func (l *look) ask(ctx context.Context, question func(context.Context) error) error {
	one, cancel := context.WithTimeout(ctx, l.Directory.o.Time)
	defer cancel()
	began := time.Now()
	if err := question(one); err != nil {
		return &trouble{err}
	}
	took := time.Since(began)
	l.report.Slowest = max(l.report.Slowest, took)
	timer := time.NewTimer(took)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return &trouble{context.Cause(ctx)}
	}
}

func (l *look) compareSome(ctx context.Context, link *link, tied []identity.Tied) error {
	d := l.Directory
	subjects := make([]string, len(tied))
	for i, t := range tied {
		subjects[i] = t.Subject
	}
	there, err := l.people(ctx, link, d.enabled(anybody(d.o.Filter), d.subjectFilter(subjects...)), subjects)
	if err != nil {
		return err
	}
	var missing []string
	for _, t := range tied {
		if there[t.Subject] == nil {
			missing = append(missing, t.Subject)
		}
	}
	var entries map[string]*person // of those who are missing, without the filters
	if len(missing) > 0 {          // asked a second time, so that it is no accident
		if entries, err = l.people(ctx, link, d.subjectFilter(missing...), missing); err != nil {
			return err
		}
	}
	for _, t := range tied {
		if err := l.compareOne(ctx, link, t, there[t.Subject], entries[t.Subject] != nil); err != nil {
			return err
		}
	}
	return nil
}

// people finds entries by their subjects.
func (l *look) people(ctx context.Context, link *link, filter string, subjects []string) (map[string]*person, error) {
	d := l.Directory
	found := make(map[string]*person)
	err := l.ask(ctx, func(ctx context.Context) error {
		entries, err := link.search(ctx, d.o.Base, filter, d.attributes(), 0, maxBatch)
		if err != nil {
			return err
		}
		for _, e := range entries {
			p := d.read(e)
			if found[p.subject] != nil || !slices.Contains(subjects, p.subject) { // that is no answer to this question
				return fmt.Errorf("it shows the entry %q without a %s that was asked for, or twice", p.dn, d.o.Subject)
			}
			found[p.subject] = p
		}
		return nil
	})
	return found, err
}

// compareOne tells what differs of one account. p is its person's entry, nil: none fits; disabled: there is one nevertheless.
func (l *look) compareOne(ctx context.Context, link *link, t identity.Tied, p *person, disabled bool) error {
	l.report.Accounts++
	if t.Status == authstore.Active {
		l.active++
	}
	why := ""
	switch {
	case p == nil && disabled:
		why = WhyDisabled
	case p == nil:
		why = WhyGone
	case len(p.addresses) > 0 && !p.has(t.Address):
		reused, err := l.reused(ctx, link, t)
		if err != nil {
			return err
		}
		if reused {
			why = WhyReused
			l.report.Reused++
		} else if len(l.report.Renamed) < maxNamed {
			l.report.Renamed = append(l.report.Renamed, Named{t.Address, p.addresses[0]})
		}
	}
	if why != "" {
		if t.Status == authstore.Active {
			l.report.Lost++
			l.lost = append(l.lost, loss{t, why})
			l.name(t.Address, why)
		}
		return nil
	}
	l.report.Present++
	if t.Status == authstore.AccountGone {
		l.report.Back++
		l.back = append(l.back, t)
		l.name(t.Address, "returned")
	}
	if l.Directory.o.GroupsAt != "" {
		if err := l.ask(ctx, func(ctx context.Context) error { return l.Directory.addGroups(ctx, link, p) }); err != nil {
			return err
		}
	}
	changed := p.changed.After(t.PrimaryChanged) && !t.PrimaryChanged.IsZero()
	first := !p.changed.IsZero() && t.PrimaryChanged.IsZero()
	if changed {
		l.report.Changed++
		l.name(t.Address, "changed")
	}
	if (changed || first || !slices.Equal(p.groups, t.Groups)) && (len(l.news) < maxNews || changed) {
		l.news = append(l.news, news{t, identity.Claims{Issuer: Issuer, Subject: t.Subject, Groups: p.groups, At: l.began, PrimaryChanged: p.changed}})
	}
	return nil
}

// reused reports whether somebody else has an account's address now. What lies behind it is his.
func (l *look) reused(ctx context.Context, link *link, t identity.Tied) (bool, error) {
	d := l.Directory
	reused := false
	err := l.ask(ctx, func(ctx context.Context) error {
		entries, err := link.search(ctx, d.o.Base, d.enabled(fill(d.o.Filter, t.Address)), []string{d.o.Subject}, 3, maxAnswer)
		if r, ok := errors.AsType[*refused](err); ok && r.code == ldap.LDAPResultSizeLimitExceeded && len(entries) > 0 {
			err = nil
		}
		reused = slices.ContainsFunc(entries, func(e *ldap.Entry) bool {
			subject := d.read(e).subject
			return subject != "" && subject != t.Subject // of an entry that does not show whose it is nothing follows
		})
		return err
	})
	return reused, err
}

func (l *look) name(address, what string) {
	if len(l.report.Named) < maxNamed {
		l.report.Named = append(l.report.Named, Named{address, what})
	}
}

// judge decides whether the directory is believed. One person always is; more than a tenth of them at once are not: a base that was moved, a right
// that was lost, a copy that is half filled, or one into which everybody's password was just loaded, look like that.
func (l *look) judge() {
	r := &l.report
	had := r.Expected
	if r.Good.IsZero() {
		had = l.active
	}
	if r.Since.IsZero() || l.began.Sub(r.Since) > erosion || r.Since.After(l.began) {
		r.Since, r.SinceHad, r.SinceLost = l.began, had, 0
	}
	r.SinceHad = max(r.SinceHad, had) // accounts were added meanwhile
	lost, changed := r.Lost > 1 && (r.SinceLost+r.Lost)*10 > r.SinceHad, r.Changed > 1 && r.Changed*10 > had
	if l.o.Accept || !lost && !changed {
		r.SinceLost = max(0, r.SinceLost+r.Lost-r.Back)
		return
	}
	r.Held = true
	const remedy = `nothing was changed. If that is so, say it: postern directory look --accept-losses (with --dry-run it tells about whom); otherwise look at base, filter, and the rights of bind_dn`
	if lost {
		r.Problem = fmt.Sprintf("%d of %d people are suddenly gone or disabled in the directory; %s", r.SinceLost+r.Lost, r.SinceHad, remedy)
	} else {
		r.Problem = fmt.Sprintf("the directory says of %d of %d people at once that their password was changed; %s", r.Changed, had, remedy)
	}
}

// apply does what follows.
func (l *look) apply(ctx context.Context) error {
	accounts := l.Accounts.As(actor)
	for _, t := range l.lost {
		changed, err := l.ifStill(ctx, t.Tied, func() (bool, error) { return accounts.SetGone(ctx, t.Account, true, t.why) })
		if err != nil {
			return fmt.Errorf("suspend account %d: %w", t.Account, err)
		}
		if changed {
			l.Log.Info("account suspended: its person is not in the directory", "account", t.Account, "why", t.why)
		}
		if err := l.keepLease(ctx); err != nil {
			return err
		}
	}
	for _, t := range l.back {
		changed, err := l.ifStill(ctx, t, func() (bool, error) { return accounts.SetGone(ctx, t.Account, false, "") })
		if err != nil {
			return fmt.Errorf("resume account %d: %w", t.Account, err)
		}
		if changed {
			l.Log.Info("account resumed: its person is in the directory again", "account", t.Account)
		}
	}
	for _, n := range l.news {
		ended, err := l.Heed(ctx, actor, n.Account, n.claims)
		switch {
		case errors.Is(err, authstore.ErrNotFound), errors.Is(err, identity.ErrTied): // it was removed or bound otherwise meanwhile
		case err != nil:
			return fmt.Errorf("heed the directory about account %d: %w", n.Account, err)
		case ended:
			l.Log.Info("primary password changed in the directory: all app passwords are revoked", "account", n.Account)
		}
		if err := l.keepLease(ctx); err != nil {
			return err
		}
	}
	return nil
}

// ifStill does what was found about an account's person, unless the account has been bound to another one, or to nobody, while the look went on.
func (l *look) ifStill(ctx context.Context, t identity.Tied, do func() (bool, error)) (bool, error) {
	now, err := l.Truth.Tied(ctx, Issuer, t.Account-1, 1)
	if err != nil || len(now) == 0 || now[0].Account != t.Account || now[0].Subject != t.Subject {
		return false, err
	}
	return do()
}

func (l *look) keepLease(ctx context.Context) error {
	if l.o.DryRun || l.now().Before(l.renew) {
		return nil
	}
	l.renew = l.now().Add(leaseTime / 2)
	return l.lease(ctx)
}

// finish keeps the report.
func (l *look) finish(ctx context.Context, outcome string) error {
	l.report.Took = l.now().Sub(l.began)
	if outcome == "good" {
		l.report.Good, l.report.Expected = l.began, l.report.Present
	}
	if l.o.DryRun {
		return nil
	}
	if l.Observe != nil {
		l.Observe(outcome)
	}
	text, err := json.Marshal(&l.report)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return l.Truth.SetLook(ctx, Issuer, text)
}
