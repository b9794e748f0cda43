package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"postern/authstore"
	"postern/authstore/identity"
	"postern/gateway/directory"
)

// Wanted is an account as a list from elsewhere has it: a file, a directory.
type Wanted struct {
	Where       string // for people: "line 7", "uid=alice,ou=people,dc=example,dc=org"
	Address     string
	Aliases     []string
	BackendName string // empty: it is left as it is
	// Issuer and Subject bind it to a person at another server; empty: nothing does.
	Issuer, Subject string
	Err             error // why the list can't be understood there; nil: it can
}

// Outcome is what an import does, or did, about one account of a list.
type Outcome string

// The outcomes.
const (
	Added     Outcome = "added"
	Changed   Outcome = "changed"
	Unchanged Outcome = "unchanged"
	Wrong     Outcome = "wrong"
)

// ImportLine is one account of a list and what becomes of it.
type ImportLine struct {
	Where   string
	Address string // as it is here, or as it was wanted where that is wrong
	Outcome Outcome
	Changes []string // in words: "alias al@example.org"
	Err     error    // of a wrong one

	step authstore.AccountImport
	of   identity.Person // whose it is, as far as it takes to know administrators
}

// Import is what has to be done for the accounts of a list to be here. Nothing is ever taken away by it.
type Import struct {
	Lines []ImportLine
	Done  bool // it was done, and not only looked at
}

// Count counts the lines of an outcome.
func (i *Import) Count(o Outcome) (n int) {
	for _, l := range i.Lines {
		if l.Outcome == o {
			n++
		}
	}
	return n
}

// SpareAdministrators makes lines wrong that would change accounts of administrators: whoever gets such a name or tie signs in as one.
func (i *Import) SpareAdministrators(administers func(identity.Person) bool) {
	for n := range i.Lines {
		if l := &i.Lines[n]; l.Outcome == Changed && administers(l.of) {
			l.Outcome, l.Err, l.Changes = Wrong, errors.New("it is an administrator's, and the token lacks the scope admins:write"), nil
		}
	}
}

// ErrWrongLines says that nothing was done, for some lines are wrong.
var ErrWrongLines = errors.New("nothing was imported, for some lines are wrong")

// PlanImport compares a list with the accounts that are here. It changes nothing. Who is to be bound to a person of dir must be there, for
// the next look would suspend him otherwise; nil: nobody looks, or the list is the directory's own.
func (d *Desk) PlanImport(ctx context.Context, list []Wanted, dir *directory.Directory) (*Import, error) {
	accounts, err := d.List(ctx)
	if err != nil {
		return nil, err
	}
	p := &planner{desk: d, directory: dir, here: make(map[string]*authstore.Account, len(accounts)), byID: make(map[authstore.AccountID]*authstore.Account, len(accounts)),
		claimed: make(map[string]string), subjects: make(map[[2]string]string), used: make(map[authstore.AccountID]string)}
	for i := range accounts {
		p.byID[accounts[i].ID] = &accounts[i]
		for _, name := range accounts[i].Names {
			p.here[name] = &accounts[i]
		}
	}
	plan := &Import{Lines: make([]ImportLine, 0, len(list))}
	for i := range list {
		line, err := p.line(ctx, &list[i])
		if err != nil {
			return nil, err
		}
		plan.Lines = append(plan.Lines, line)
	}
	return plan, nil
}

// ApplyImport does what was planned. Where a line is wrong nothing is done and the error is ErrWrongLines, but with skipWrong all others are
// done. It may be done again after an error: a new plan finds what was written.
func (d *Desk) ApplyImport(ctx context.Context, who authstore.Actor, plan *Import, skipWrong bool) error {
	if !skipWrong && plan.Count(Wrong) > 0 {
		return ErrWrongLines
	}
	var steps []authstore.AccountImport
	var lines []*ImportLine
	for i := range plan.Lines {
		if l := &plan.Lines[i]; l.Outcome == Added || l.Outcome == Changed {
			steps, lines = append(steps, l.step), append(lines, l)
		}
	}
	done, err := d.As(who).Import(ctx, steps)
	if err == nil {
		plan.Done = true
		return nil
	}
	told := "nothing was imported"
	if done > 0 {
		told = fmt.Sprintf("%d accounts were imported before; the same import again does the others", done)
	}
	if e, ok := errors.AsType[*authstore.ImportError](err); ok {
		return fmt.Errorf("%s, %s: %w (somebody changed accounts meanwhile?); %s", lines[e.Index].Where, lines[e.Index].Address, e.Err, told)
	}
	return fmt.Errorf("%w; %s", err, told)
}

// planner knows what is here and what earlier lines of the list want.
type planner struct {
	desk      *Desk
	directory *directory.Directory
	here      map[string]*authstore.Account // by each name
	byID      map[authstore.AccountID]*authstore.Account
	claimed   map[string]string // where the list has a name, as address or alias
	subjects  map[[2]string]string
	used      map[authstore.AccountID]string
}

// line plans one account. An error is none of the line's.
func (p *planner) line(ctx context.Context, w *Wanted) (ImportLine, error) {
	l := ImportLine{Where: w.Where, Address: w.Address, Outcome: Wrong, Err: w.Err}
	if l.Err != nil {
		return l, nil
	}
	if w.Issuer+w.Subject != "" {
		if l.Err = identity.CheckTie(w.Issuer, w.Subject); l.Err != nil {
			return l, nil
		}
	}
	a, tied, err := p.find(ctx, w)
	if err != nil {
		if _, ok := errors.AsType[*lineError](err); ok {
			l.Err, err = err, nil
		}
		return l, err
	}
	if l.Err = p.claim(w, a, &l); l.Err != nil {
		return l, nil
	}
	if l.Err = authstore.CheckBackendName(w.BackendName); l.Err != nil {
		return l, nil
	}
	if a == nil {
		l.Outcome = Added
	} else {
		l.Address, l.step.Account = a.Names[0], a.ID
		l.of = identity.Person{ID: a.ID, Admin: a.Admin, Ties: []identity.Tie{{Groups: a.Groups}}}
	}
	for _, alias := range l.step.Aliases {
		l.Changes = append(l.Changes, "alias "+alias)
	}
	if w.BackendName != "" && (a == nil || a.BackendName != w.BackendName) {
		l.step.BackendName = w.BackendName
		l.Changes = append(l.Changes, "backend name "+w.BackendName)
	}
	if w.Issuer != "" && !tied {
		l.step.Issuer, l.step.Subject = w.Issuer, w.Subject
		l.Changes = append(l.Changes, "tie to "+w.Issuer)
	}
	switch {
	case a == nil:
	case len(l.Changes) == 0:
		l.Outcome = Unchanged
	default:
		l.Outcome = Changed
	}
	return l, nil
}

// lineError is a fault of a line.
type lineError struct{ text string }

func (e *lineError) Error() string { return e.text }

func wrongLine(format string, args ...any) error { return &lineError{fmt.Sprintf(format, args...)} }

// find is the account that is meant; nil: it is to be made. tied says that it is bound already as wanted. What binds it to a person goes
// before its address, which may be another one by now.
func (p *planner) find(ctx context.Context, w *Wanted) (a *authstore.Account, tied bool, err error) {
	if w.Issuer != "" {
		key := [2]string{w.Issuer, w.Subject}
		if where := p.subjects[key]; where != "" {
			return nil, false, wrongLine("that subject stands at %s already", where)
		}
		p.subjects[key] = w.Where
		of, err := p.desk.truth.PersonTied(ctx, w.Issuer, w.Subject)
		if err == nil {
			a = p.byID[of.ID]
			tied = a != nil // else it was made at this moment
		} else if !errors.Is(err, authstore.ErrNotFound) {
			return nil, false, err
		}
	}
	if w.Issuer == directory.Issuer && !tied && p.directory != nil {
		if err := p.directory.Knows(ctx, w.Subject); errors.Is(err, directory.ErrNotThere) {
			return nil, false, wrongLine("%v", err)
		} else if err != nil {
			return nil, false, err
		}
	}
	name, err := p.desk.Canonical(w.Address)
	if err != nil {
		return nil, false, wrongLine("%q: %v", w.Address, err)
	}
	named := p.here[name]
	switch {
	case named == nil:
		return a, tied, nil
	case tied && a != named:
		return nil, false, wrongLine("%s is a name of %s, but that subject belongs to %s", name, named.Names[0], a.Names[0])
	case !tied && named.Names[0] != name:
		return nil, false, wrongLine("%s is an alias of %s already", name, named.Names[0])
	}
	if w.Issuer != "" && !tied {
		of, err := p.desk.truth.Person(ctx, named.ID)
		if err != nil && !errors.Is(err, authstore.ErrNotFound) {
			return nil, false, err
		}
		if slices.ContainsFunc(of.Ties, func(t identity.Tie) bool { return t.Issuer == w.Issuer }) {
			return nil, false, wrongLine("%s belongs to another person at %s", name, w.Issuer)
		}
	}
	return named, tied, nil
}

// claim checks the names that an account is to have, and notes those that are new.
func (p *planner) claim(w *Wanted, a *authstore.Account, l *ImportLine) error {
	if a != nil {
		if where := p.used[a.ID]; where != "" {
			return wrongLine("it stands at %s already", where)
		}
		p.used[a.ID] = w.Where
	}
	for i, typed := range append([]string{w.Address}, w.Aliases...) {
		name, err := p.desk.Canonical(typed)
		if err != nil {
			return fmt.Errorf("%q: %w", typed, err)
		}
		if p.here[name] == nil {
			if name, err = p.desk.NewName(typed); err != nil {
				return err
			}
		}
		if where, taken := p.claimed[name]; taken {
			if where == w.Where && i > 0 {
				continue // named twice in one line
			}
			return wrongLine("%s stands at %s already", name, where)
		}
		p.claimed[name] = w.Where
		switch owner := p.here[name]; {
		case owner != nil && owner != a:
			return wrongLine("%s is a name of %s already", name, owner.Names[0])
		case owner != nil:
		case i == 0 && a == nil:
			l.Address, l.step.Address = name, name
		default:
			l.step.Aliases = append(l.step.Aliases, name)
		}
	}
	return nil
}

// Text is a line's outcome in words.
func (l *ImportLine) Text() string {
	if l.Err != nil {
		return l.Err.Error()
	}
	return strings.Join(l.Changes, ", ")
}
