package directory

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/go-ldap/ldap/v3"

	"postern/protocols"
)

// sampled is how many entries a probe looks at.
const sampled = 20

// Probe tries the directory as far as one can without a person's password: the bind, the base, what is shown of people. It says what it saw and
// what it could not try, or in plain words what is wrong and what to do.
func (d *Directory) Probe(ctx context.Context) (seen, untried string, err error) {
	ctx, cancel := context.WithTimeout(ctx, d.o.Time)
	defer cancel()
	l, err := d.open(ctx)
	if err != nil {
		return "", "", d.explain(err)
	}
	defer l.close()
	if err := d.base(ctx, l, d.o.Base); err != nil {
		return "", "", d.explain(err)
	}
	if d.o.GroupsAt != "" {
		if err := d.base(ctx, l, d.o.GroupsAt); err != nil {
			return "", "", fmt.Errorf("%s: no groups can be searched below %s, so that nobody can sign in; look at group_base and at the rights there: %w", d.o.Route.Address, d.o.GroupsAt, err)
		}
	}
	people, err := l.search(ctx, d.o.Base, d.enabled(anybody(d.o.Filter)), d.attributes(), sampled, maxAnswer)
	if r, ok := errors.AsType[*refused](err); ok && r.code == ldap.LDAPResultSizeLimitExceeded && len(people) > 0 {
		err = nil // which was to be expected
	}
	switch {
	case errors.Is(err, errReferral):
		return "", "", fmt.Errorf("%s: %w; set base to a part that it holds itself, or at Active Directory ask the global catalogue (port 3269)", d.o.Route.Address, err)
	case err != nil:
		return "", "", d.explain(err)
	case len(people) == 0:
		return "", "", fmt.Errorf("%s: nobody below %s fits filter and disabled_filter; look at base and filter, and whether %s may read the attributes in them",
			d.o.Route.Address, d.o.Base, d.who())
	}
	return d.judgeSample(people)
}

// judgeSample looks at what some entries show.
func (d *Directory) judgeSample(people []*ldap.Entry) (seen, untried string, err error) {
	addresses, changed := 0, 0
	for _, e := range people {
		p := d.read(e)
		if p.subject == "" {
			return "", "", fmt.Errorf("%s: %w", d.o.Route.Address, d.nameless(p))
		}
		addresses += min(len(p.addresses), 1)
		changed += min(int(max(p.changed.Unix(), 0)), 1)
	}
	if addresses == 0 {
		return "", "", fmt.Errorf("%s: no entry of %d shows an address in %s; give %s the right to read it, or set address_attribute", d.o.Route.Address, len(people), d.o.Address, d.who())
	}
	if d.o.Changed != "" && changed == 0 {
		untried = fmt.Sprintf("no entry of %d shows %s, so that nobody here learns of a changed password but at the next sign-in; give %s the right to read it (OpenLDAP has it with the overlay ppolicy "+
			"where a password was changed since), or set changed_attribute = \"\"", len(people), d.o.Changed, d.who())
	}
	return fmt.Sprintf("%s answers, %s finds people below %s", d.o.Route.Address, d.who(), d.o.Base), untried, nil
}

// base wants the entry below which people or groups are: whoever may not see it is told that nobody is there.
func (d *Directory) base(ctx context.Context, l *link, dn string) error {
	r, err := l.searched(ctx, ldap.ScopeBaseObject, dn, "(objectClass=*)", []string{"1.1"}, 1, maxAnswer)
	if err == nil && len(r.Entries) != 1 {
		err = errNoBase
	}
	return err
}

var errNoBase = errors.New("it does not show the entry of base")

func (d *Directory) who() string {
	if d.o.BindDN == "" {
		return "an anonymous client"
	}
	return d.o.BindDN
}

// explain turns an error into what is wrong and what to do.
func (d *Directory) explain(err error) error {
	remedy := ""
	r, answered := errors.AsType[*refused](err)
	_, binding := errors.AsType[*ownBind](err)
	implicit := d.o.Route.Security == protocols.ImplicitTLS
	switch {
	case binding && answered && r.code == ldap.LDAPResultInvalidCredentials:
		remedy = "it refuses our bind; look at bind_dn and password_file"
	case binding && answered:
		remedy = `it does not let us bind; look at bind_dn, and where it wants encryption set tls = "starttls" or "implicit"`
	case answered && r.code == ldap.LDAPResultNoSuchObject, errors.Is(err, errNoBase):
		remedy = fmt.Sprintf("there is no %s, or %s may not see it; look at base and at the rights there", d.o.Base, d.who())
	case answered && (r.code == ldap.LDAPResultInsufficientAccessRights || r.code == ldap.LDAPResultOperationsError):
		remedy = fmt.Sprintf("%s may not search there; set bind_dn, or give it the right", d.who())
	case answered && d.o.Route.Security == protocols.StartTLS:
		remedy = `it refuses; if that was STARTTLS, give it a certificate, or set tls = "implicit" and the port that speaks TLS (636)`
	case answered:
		remedy = "it refuses the question; look at base, filter and its log"
	case errors.Is(err, errNoSense):
		remedy = `look at host and port (389, or 636 with tls = "implicit")`
	case errors.Is(err, io.EOF) && !implicit:
		remedy = `it hangs up; if it speaks TLS from the start, set tls = "implicit"`
	case errors.Is(err, io.EOF):
		remedy = `it hangs up; if it speaks TLS only after STARTTLS, set tls = "starttls"; otherwise look at its log`
	}
	return protocols.Explain(d.o.Route, err, remedy)
}
