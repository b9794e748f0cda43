// Package directory asks an LDAP directory: whether a primary password is right, who is there still, and who could be given an account.
// Nothing is written there. What it says is heeded only where it was said without doubt: an error, a part of an answer, or a directory that
// suddenly lost its people changes nothing here.
package directory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/go-ldap/ldap/v3"

	"postern/authstore/identity"
	"postern/protocols"
)

// Issuer is what ties to people of the directory have as their issuer.
const Issuer = "ldap"

// Options say how a directory is reached and read.
type Options struct {
	Route    *protocols.Route                              // the way there; its credential is not used
	BindDN   string                                        // whom searches are made as; empty: anonymous
	Password func() ([]byte, error)                        // BindDN's, read at each bind; the caller clears it
	Base     string                                        // where people are
	Filter   string                                        // finds a person: {address}, {local} and {domain} stand for the name that was typed
	Disabled string                                        // a filter that fits those who are disabled; empty: nobody is
	Address  string                                        // the attribute with a person's addresses
	Subject  string                                        // the attribute that names an entry for ever
	Groups   string                                        // the attribute with a person's groups; empty: none is asked for
	Changed  string                                        // the attribute that says when the password was changed; empty: none is asked for
	GroupsAt string                                        // where groups are searched that name their members; empty: they are not
	GroupsBy string                                        // a filter that finds a person's groups there: {dn} stands for his entry's name
	Tied     func(context.Context, string) (string, error) // the subject that an address's account is bound to; empty: none
	Time     time.Duration                                 // what one question may take; 0: ten seconds
	Log      *slog.Logger
}

// questionTime is what one question may take.
const questionTime = 10 * time.Second

// maxAtOnce bounds the passwords that are checked at once.
const maxAtOnce = 16

// Directory is an LDAP directory. Goroutines may share it.
type Directory struct {
	o          Options
	idle       chan *link // connections that searches have bound
	closed     atomic.Bool
	places     chan struct{}
	complained atomic.Int64 // when the log was last told of trouble, in Unix seconds
}

var _ identity.Checker = (*Directory)(nil)

// New makes a directory. It connects when it is first asked.
func New(o Options) (*Directory, error) {
	if o.Time == 0 {
		o.Time = questionTime
	}
	for key, filter := range map[string]string{"filter": fill(o.Filter, "a@example.org"), "disabled_filter": o.Disabled, "group_filter": o.GroupsBy} {
		if filter == "" {
			continue
		}
		if _, err := ldap.CompileFilter(strings.ReplaceAll(filter, "{dn}", "x")); err != nil {
			return nil, fmt.Errorf("%s %q is no LDAP filter: %w", key, filter, err)
		}
	}
	return &Directory{o: o, idle: make(chan *link, maxIdle), places: make(chan struct{}, maxAtOnce)}, nil
}

// Close ends the connections that are kept. What is asked afterwards, by a sign-in that was under way, keeps none.
func (d *Directory) Close() {
	d.closed.Store(true)
	for {
		select {
		case l := <-d.idle:
			l.close()
		default:
			return
		}
	}
}

var (
	errBusy  = errors.New("too many sign-ins are being checked")
	errMany  = errors.New("two entries have the same address; nobody gets in by it until one of them is changed, or filter and base leave one out")
	errNoOne = errors.New("the directory has nobody by that name")
)

// Check tells whether the directory takes a primary password for the person with an address, and who that is: identity.ErrWrong, or another
// error where that can't be known. No error says anything of the password.
func (d *Directory) Check(ctx context.Context, address string, password []byte) (identity.Claims, error) {
	// An empty password would be an anonymous bind (RFC 4513 section 5.1.2), which succeeds; to what ends strings at NUL, so would NUL.
	// Servers leave control characters out of names before they compare.
	if len(password) == 0 || bytes.IndexByte(password, 0) >= 0 || strings.ContainsFunc(address, unicode.IsControl) {
		return identity.Claims{}, identity.ErrWrong
	}
	ctx, cancel := context.WithTimeout(ctx, d.o.Time)
	defer cancel()
	select {
	case d.places <- struct{}{}:
		defer func() { <-d.places }()
	case <-ctx.Done():
		return identity.Claims{}, errBusy
	}
	p, err := d.check(ctx, address, password)
	switch {
	case errors.Is(err, errNoOne), errors.Is(err, identity.ErrWrong):
		return identity.Claims{}, identity.ErrWrong
	case err != nil:
		if ctx.Err() != nil { // it is the cause of whatever went wrong
			err = context.Cause(ctx)
		}
		err = fmt.Errorf("sign in at %s: %w", d.o.Route.Address, err)
		d.complain(err)
		return identity.Claims{}, err
	}
	return p.claims(address), nil
}

func (d *Directory) check(ctx context.Context, address string, password []byte) (*person, error) {
	p, err := d.find(ctx, address)
	if err != nil {
		return nil, err
	}
	if p.dn == "" || p.subject == "" {
		return nil, d.nameless(p)
	}
	if err := d.prove(ctx, p.dn, password); err != nil {
		return nil, err
	}
	return p, nil
}

// find finds whose an address is. Who has it now goes before whom the account is bound to, though he would not be let in: his mail lies behind
// the address. Where nobody has it, the person was renamed.
func (d *Directory) find(ctx context.Context, address string) (p *person, err error) {
	err = d.withLink(ctx, func(l *link) error {
		p, err = d.one(ctx, l, d.enabled(fill(d.o.Filter, address)))
		if !errors.Is(err, errNoOne) || d.o.Tied == nil {
			return err
		}
		subject, tiedErr := d.o.Tied(ctx, address)
		if tiedErr != nil { // whether he has another name there is not known, so that it is no wrong password
			return fmt.Errorf("look whom the account is bound to: %w", tiedErr)
		}
		if subject == "" {
			return err
		}
		p, err = d.one(ctx, l, d.enabled(anybody(d.o.Filter), d.subjectFilter(subject)))
		return err
	})
	return p, err
}

// one finds a single entry with all that is told of it.
func (d *Directory) one(ctx context.Context, l *link, filter string) (*person, error) {
	// Three are asked for, so that two are known to be too many also to servers that count the limit otherwise.
	entries, err := l.search(ctx, d.o.Base, filter, d.attributes(), 3, maxAnswer)
	switch {
	case len(entries) > 1:
		return nil, errMany
	case err != nil:
		return nil, err
	case len(entries) == 0:
		return nil, errNoOne
	}
	p := d.read(entries[0])
	if err := d.addGroups(ctx, l, p); err != nil {
		return nil, err
	}
	return p, nil
}

// ErrNotThere says that the directory answered, and has no such person.
var ErrNotThere = errors.New("the directory has nobody")

// Knows wants a person to be there by what an entry keeps for ever, and not disabled; ErrNotThere.
func (d *Directory) Knows(ctx context.Context, subject string) error {
	ctx, cancel := context.WithTimeout(ctx, d.o.Time)
	defer cancel()
	err := d.withLink(ctx, func(l *link) error {
		_, err := d.one(ctx, l, d.enabled(anybody(d.o.Filter), d.subjectFilter(subject)))
		return err
	})
	if errors.Is(err, errNoOne) {
		return fmt.Errorf("%w with the %s %q who fits filter and is not disabled; look there for the right one", ErrNotThere, d.o.Subject, subject)
	}
	return d.explain(err)
}

// addGroups searches for the groups that name a person among their members.
func (d *Directory) addGroups(ctx context.Context, l *link, p *person) error {
	if d.o.GroupsAt == "" {
		return nil
	}
	found, err := l.search(ctx, d.o.GroupsAt, strings.ReplaceAll(d.o.GroupsBy, "{dn}", ldap.EscapeFilter(p.dn)), []string{"1.1"}, 0, maxAnswer)
	if err != nil {
		return err
	}
	for _, g := range found {
		p.addGroup(g.DN)
	}
	return nil
}

// prove binds as an entry over a connection of its own, so that no search is ever made in its name.
func (d *Directory) prove(ctx context.Context, dn string, password []byte) error {
	l, err := d.dial(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	err = l.bind(ctx, dn, password)
	r, refused := errors.AsType[*refused](err)
	switch {
	case !refused:
		return err
	case r.code == ldap.LDAPResultInvalidCredentials, r.code == ldap.LDAPResultInappropriateAuthentication: // the entry has no password
		if r.why != "" {
			d.o.Log.Warn("the directory lets nobody in by this entry", "entry", dn, "code", r.why)
		}
		return identity.ErrWrong
	case r.code == ldap.LDAPResultConstraintViolation:
		// How 389 Directory Server says that wrong passwords have locked the entry. It is no outage: of one, people hear, and who asks about names that
		// nobody has would hear it too, until somebody's password is refused, and so could tell which is which.
		d.o.Log.Warn("the directory lets nobody in by this entry", "entry", dn, "code", r.Error())
		return identity.ErrWrong
	}
	return err
}

// complain tells the log that primary passwords can't be checked, at most once a minute. It is not told of who gave up.
func (d *Directory) complain(err error) {
	now, last := time.Now().Unix(), d.complained.Load()
	if !errors.Is(err, context.Canceled) && now-last >= 60 && d.complained.CompareAndSwap(last, now) {
		d.o.Log.Error("primary passwords can't be checked", "err", err)
	}
}

func (d *Directory) nameless(p *person) error {
	return fmt.Errorf("the entry %q shows no usable %s, so that its person can't be told from the next one with that address; "+
		"give bind_dn the right to read it, or set subject_attribute", p.dn, d.o.Subject)
}
