package identity

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"postern/authstore"
)

// Errors of people whom another server vouches for.
var (
	// ErrTied: the account belongs to another person there, or that person to another account: an address that was given to somebody new
	// must not open what was his who had it before.
	ErrTied = errors.New("the account belongs to another person there")
	// ErrNobody: that person has no account here, and none is made at the first sign-in.
	ErrNobody = errors.New("there is no account here for that person")
)

// Claims are what another server says of somebody who has proven himself there. The zero value says nothing: the server only takes
// passwords.
type Claims struct {
	Issuer    string   // an OpenID Connect issuer's URL; "ldap" for the directory
	Subject   string   // names the person there, for ever; empty: it has no such name
	SID       string   // names the session there, so that it can end ours
	Addresses []string // that are his for sure, the main one first
	Groups    []string
	Factor    bool      // a second factor was given there that counts here
	At        time.Time // when he proved himself there; zero: it does not say
	// PrimaryChanged is when the primary password was changed there last; zero: nobody knows.
	PrimaryChanged time.Time
}

// Tie binds an account to a person at another server.
type Tie struct {
	Issuer         string
	Subject        string
	Groups         []string  // as last told
	PrimaryChanged time.Time // likewise; zero: never told
	Factor         bool      // a second factor that was given there has counted here
	Created        time.Time
	Seen           time.Time // when he was last told of
}

// Provisioning says for whom an account is made at the first sign-in: whose address is of one of the domains, or who is in one of the groups.
// The zero value is for nobody.
type Provisioning struct {
	Domains []string
	Groups  []string
}

// tied finds what binds a person to an issuer.
func (of *Person) tied(issuer string) (Tie, bool) {
	i := slices.IndexFunc(of.Ties, func(t Tie) bool { return t.Issuer == issuer })
	if i < 0 {
		return Tie{}, false
	}
	return of.Ties[i], true
}

// heed keeps what claims say of a person, and reports whether his primary password was changed since it was last told. ErrTied.
func heed(ctx context.Context, tx Tx, of Person, c Claims, now time.Time) (changed bool, err error) {
	if c.Subject == "" {
		return false, nil
	}
	was, bound := of.tied(c.Issuer)
	if bound && was.Subject != c.Subject {
		return false, ErrTied
	}
	next := Tie{Issuer: c.Issuer, Subject: c.Subject, Groups: c.Groups, PrimaryChanged: was.PrimaryChanged, Factor: was.Factor || c.Factor, Seen: now}
	if c.PrimaryChanged.After(was.PrimaryChanged) { // never back: a copy of the directory may lag behind
		next.PrimaryChanged = c.PrimaryChanged
		changed = !was.PrimaryChanged.IsZero()
	}
	if err := tx.SetTie(ctx, next); err != nil {
		return false, err
	}
	if !bound {
		return changed, tx.Event(ctx, "tie.made", c.Issuer)
	}
	return changed, nil
}

// mayProvision reports whether the first sign-in with a name may make an account, as far as the name says.
func (p *People) mayProvision(name string) bool {
	return len(p.o.Provision.Groups) > 0 || p.o.Provision.covers(name)
}

func (p *Provisioning) covers(name string) bool {
	_, domain, _ := strings.Cut(name, "@")
	return domain != "" && slices.ContainsFunc(p.Domains, func(d string) bool { return strings.EqualFold(d, domain) })
}

// errTagged is of an address that only leads to somebody's.
var errTagged = errors.New("an address with + is nobody's name")

// told makes an address canonical that another server tells of. One with a tag is not taken for the address without it, as what is typed is: who
// receives what is sent to alice+choir@example.org need not be alice.
func (p *People) told(address string) (string, error) {
	whole := p.o.Names
	whole.PlusAddresses = false
	name, err := whole.Canonical(address)
	if err != nil {
		return "", err
	}
	if again, err := p.o.Names.Canonical(name); err != nil || again != name {
		return "", errTagged
	}
	return name, nil
}

// maxAliases bounds the aliases that an account is made with.
const maxAliases = 20

// provision makes the account of somebody who has proven himself elsewhere and signs in for the first time; ErrNobody. Of two at once, one
// makes it. name is canonical, and one of his addresses where these are told: the others become aliases, unless they are somebody's already.
func (p *People) provision(ctx context.Context, who authstore.Actor, name string, c Claims) (Person, error) {
	inGroup := slices.ContainsFunc(c.Groups, func(g string) bool { return slices.Contains(p.o.Provision.Groups, g) })
	if !inGroup && !p.o.Provision.covers(name) {
		return Person{}, ErrNobody
	}
	var aliases []string
	his := len(c.Addresses) == 0
	for _, a := range c.Addresses {
		switch other, err := p.told(a); {
		case err != nil:
		case other == name:
			his = true
		case (inGroup || p.o.Provision.covers(other)) && len(aliases) < maxAliases:
			aliases = append(aliases, other)
		}
	}
	if !his { // another server may take more names for his than are: what was typed must not become one
		return Person{}, ErrNobody
	}
	if c.Subject != "" { // under another name he may have one
		if of, err := p.o.Truth.PersonTied(ctx, c.Issuer, c.Subject); !errors.Is(err, authstore.ErrNotFound) {
			if err == nil && !slices.Contains(of.Names, name) { // else he signed in twice at once
				err = ErrTied
			}
			return of, err
		}
	}
	made, err := p.o.Accounts.As(who).Add(ctx, name)
	if err != nil && !errors.Is(err, authstore.ErrNameTaken) {
		return Person{}, err
	}
	if err == nil {
		for _, alias := range aliases {
			p.o.Accounts.As(who).AddAlias(ctx, made.ID, alias) // what can't be one, or is somebody's, stays out
		}
		return p.o.Truth.Person(ctx, made.ID)
	}
	of, err := p.o.Truth.PersonNamed(ctx, name)
	if err == nil && of.Names[0] != name { // it has become another newcomer's alias meanwhile, who may not be bound to it yet
		err = ErrTied
	}
	return of, err
}

// mayAdminister reports whether a session's account is an administrator's, or in a group of administrators.
func (p *People) mayAdminister(s StoredSession) bool {
	return s.Admin || InGroup(s.Groups, p.o.Vouching, p.o.AdminGroups)
}

// InGroup reports whether an issuer says of somebody that he is in one of some groups.
func InGroup(his []Told, issuer string, groups []string) bool {
	return issuer != "" && slices.ContainsFunc(his, func(t Told) bool {
		return t.Issuer == issuer && slices.ContainsFunc(t.Groups, func(g string) bool { return slices.Contains(groups, g) })
	})
}

// Heed keeps what a directory said of an account at c.At, unasked by its person: where the primary password was changed there, all that the old
// one stood for ends, and ended is true. ErrTied where the account is not
// bound to that person, authstore.ErrNotFound.
func (p *People) Heed(ctx context.Context, who authstore.Actor, id authstore.AccountID, c Claims) (ended bool, err error) {
	change, err := p.o.Truth.Act(ctx, who, id, func(tx Tx) error {
		of, err := tx.Person(ctx)
		if err != nil {
			return err
		}
		if was, bound := of.tied(c.Issuer); !bound || was.Subject != c.Subject { // taken back or bound otherwise since the directory was asked
			return ErrTied
		} else if was.Seen.After(c.At) && !c.At.IsZero() { // he signed in since, and what was told then of his groups is newer
			c.Groups = was.Groups
		}
		if ended, err = heed(ctx, tx, of, c, p.now()); err != nil || !ended {
			return err
		}
		_, err = changedUnseen(ctx, tx, p.KeepsPrimary())
		return err
	})
	if err != nil {
		return false, err
	}
	if change.Sequence != 0 {
		p.o.Accounts.Confirm(ctx, change)
	}
	return ended, nil
}

// changedUnseen is changed where nobody knows the new primary password yet. What is kept of the old one, unless it is the primary password
// itself, is forgotten: compared with it, the new one would be told as a second change, and end what was made meanwhile.
func changedUnseen(ctx context.Context, tx Tx, keeps bool) (int, error) {
	if !keeps {
		if err := tx.ForgetPrimary(ctx); err != nil {
			return 0, err
		}
	}
	return changed(ctx, tx, 0)
}

// PrimaryChanged ends all that an account's primary password stood for, because somebody who must know says that it was changed elsewhere:
// all app passwords and sessions, in one transaction. It counts the app passwords. keeps: primary passwords are kept here. authstore.ErrNotFound.
func PrimaryChanged(ctx context.Context, truth Truth, accounts *authstore.Accounts, keeps bool, who authstore.Actor, id authstore.AccountID) (n int, done authstore.Confirmation, err error) {
	c, err := truth.Act(ctx, who, id, func(tx Tx) error {
		if _, err := tx.Person(ctx); err != nil { // there must be one
			return err
		}
		n, err = changedUnseen(ctx, tx, keeps)
		return err
	})
	if err != nil {
		return 0, authstore.Confirmation{}, err
	}
	return n, accounts.Confirm(ctx, c), nil
}
