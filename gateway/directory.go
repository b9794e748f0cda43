package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"postern/authstore"
	"postern/authstore/identity"
	"postern/config"
	"postern/gateway/directory"
)

// ErrNoDirectory says what to write for one.
var ErrNoDirectory = errors.New(`there is no directory; write sign_in = "ldap" in [portal], and [portal.ldap] (docs/ldap.md)`)

// directory is the one that a configuration names. It connects when it is first asked.
func (d *Desk) directory(cfg *config.Config) (*directory.Directory, error) {
	c := &cfg.Portal.LDAP
	r, err := routeTo("portal.ldap", c.Address, c.TLS, c.CAFile, c.ServerName)
	if err != nil {
		return nil, fmt.Errorf("[portal.ldap]: %w", err)
	}
	password := func() ([]byte, error) { return readPassword(c.PasswordFile) }
	if c.BindDN != "" { // it is read at each bind, and shall not be missed at the first one only
		p, err := password()
		if err != nil {
			return nil, fmt.Errorf("[portal.ldap]: %w", err)
		}
		clear(p)
	}
	dir, err := directory.New(directory.Options{
		Route: r, BindDN: c.BindDN, Password: password, Base: c.Base, Filter: c.Filter, Disabled: c.DisabledFilter,
		Address: c.AddressAttribute, Subject: c.SubjectAttribute, Groups: c.GroupsAttribute, Changed: c.ChangedAttribute,
		GroupsAt: c.GroupBase, GroupsBy: c.GroupFilter, Tied: d.tiedTo, Log: d.log,
	})
	if err != nil {
		return nil, fmt.Errorf("[portal.ldap]: %w", err)
	}
	return dir, nil
}

// tiedTo is whom in the directory an address's account is bound to; empty: nobody.
func (d *Desk) tiedTo(ctx context.Context, address string) (string, error) {
	p, err := d.truth.PersonNamed(ctx, address)
	if errors.Is(err, authstore.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(p.Ties, func(t identity.Tie) bool { return t.Issuer == directory.Issuer })
	if i < 0 {
		return "", nil
	}
	return p.Ties[i].Subject, nil
}

// looker looks who is in the directory still.
func (d *Desk) looker(dir *directory.Directory, people *identity.People) *directory.Looker {
	return &directory.Looker{Directory: dir, Truth: d.truth, Accounts: d.Accounts, Heed: people.Heed, Owner: rand.Text(), Log: d.log}
}

// OwnDirectory is the directory of the desk's configuration; ErrNoDirectory.
func (d *Desk) OwnDirectory() (*directory.Directory, error) {
	if !d.cfg.HasPortal() || d.cfg.Portal.SignIn != "ldap" {
		return nil, ErrNoDirectory
	}
	return d.directory(d.cfg)
}

// ListDirectory lists whom the directory knows, or those of them whom a filter chooses, for an import; ErrNoDirectory.
func (d *Desk) ListDirectory(ctx context.Context, filter string) (list []Wanted, err error) {
	dir, err := d.OwnDirectory()
	if err != nil {
		return nil, err
	}
	err = dir.List(ctx, filter, func(p directory.Listed) error {
		if len(list) == maxListed {
			return fmt.Errorf("there are more than %d people; choose some with a filter", maxListed)
		}
		w := Wanted{Where: p.Entry, Issuer: directory.Issuer, Subject: p.Subject}
		switch {
		case len(p.Addresses) == 0:
			w.Err = fmt.Errorf("it shows no address in %s", d.cfg.Portal.LDAP.AddressAttribute)
		case p.Subject == "":
			w.Err = fmt.Errorf("it shows no usable %s", d.cfg.Portal.LDAP.SubjectAttribute)
		default:
			w.Address, w.Aliases = p.Addresses[0], p.Addresses[1:]
		}
		list = append(list, w)
		return nil
	})
	return list, err
}

// Looker looks into the directory for the command line; ErrNoDirectory.
func (d *Desk) Looker() (*directory.Looker, error) {
	dir, err := d.OwnDirectory()
	if err != nil {
		return nil, err
	}
	people, err := d.people(d.cfg)
	if err != nil {
		return nil, err
	}
	return d.looker(dir, people), nil
}

// watchDirectory looks regularly who is in the directory still, until the generation accepts no more.
func (g *Gateway) watchDirectory(n *generation) {
	if n.directory == nil {
		return
	}
	g.servers.Go(func() {
		<-n.accepting.Done()
		n.directory.Close()
	})
	every := n.cfg.Portal.LDAP.LookEvery.Duration()
	if every == 0 {
		return
	}
	k := g.desk.looker(n.directory, n.people)
	k.Observe = g.metrics.Look
	g.servers.Go(func() { k.Run(n.accepting, every) })
}

// checkDirectory looks at the directory, and at what the last look into it found.
func checkDirectory(ctx context.Context, d *Desk, cfg *config.Config, report func(Finding)) {
	c := &cfg.Portal.LDAP
	dir, err := d.directory(cfg)
	f := Finding{Subject: "directory", Err: err}
	if err == nil {
		f.Detail, f.Untried, f.Err = dir.Probe(ctx)
	}
	report(f)
	every := c.LookEvery.Duration()
	if every == 0 {
		return
	}
	last, err := (&directory.Looker{Truth: d.truth}).Last(ctx)
	f = Finding{Subject: "directory look", Err: err}
	switch {
	case err != nil:
	case last == nil:
		f.Detail = "no gateway has looked yet"
	case last.Problem != "":
		f.Err = fmt.Errorf("at %s: %s", last.At.Local().Format(time.DateTime), last.Problem)
	case time.Since(last.At) > 3*every+time.Minute:
		f.Err = fmt.Errorf("the last one was at %s, though there is to be one every %v; is a gateway running?", last.At.Local().Format(time.DateTime), every)
	default:
		f.Detail = fmt.Sprintf("at %s; of %d accounts that are bound to people there, %d are there", last.At.Local().Format(time.DateTime), last.Accounts, last.Present)
		if last.Slowest > slowQuestion {
			f.Untried = fmt.Sprintf("the slowest question took %v; let the directory index %s (OpenLDAP: olcDbIndex: %s eq)", last.Slowest.Round(time.Millisecond), c.SubjectAttribute, c.SubjectAttribute)
		}
	}
	report(f)
}

// slowQuestion is longer than an answer about a hundred people takes that comes from an index.
const slowQuestion = time.Second
