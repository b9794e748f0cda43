package directory

import (
	"context"
	"fmt"

	"github.com/go-ldap/ldap/v3"
)

// page is how many entries are asked for at once where everybody is listed; servers rarely give more than 500 or 1000.
const page = 500

// Listed is a person who could be given an account.
type Listed struct {
	Entry     string   // the entry's name
	Subject   string   // empty: it shows none of use
	Addresses []string // the main one first; empty: it shows none
}

// List lists the people that could sign in, page by page; each stops it with an error. filter chooses among them; empty: all.
func (d *Directory) List(ctx context.Context, filter string, each func(Listed) error) error {
	filters := []string{anybody(d.o.Filter)}
	if filter != "" {
		if _, err := ldap.CompileFilter(filter); err != nil {
			return fmt.Errorf("%q is no LDAP filter such as \"(ou=sales)\": %w", filter, err)
		}
		filters = append(filters, filter)
	}
	l, err := d.openIn(ctx)
	if err != nil {
		return d.explain(err)
	}
	defer l.close()
	paging := ldap.NewControlPaging(page)
	for {
		entries, more, err := d.page(ctx, l, d.enabled(filters...), paging)
		if err != nil {
			return d.explain(err)
		}
		for _, e := range entries {
			p := d.read(e)
			if err := each(Listed{p.dn, p.subject, p.addresses}); err != nil {
				return err
			}
		}
		if len(more) == 0 {
			return nil
		}
		paging.SetCookie(more)
	}
}

func (d *Directory) openIn(ctx context.Context) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, d.o.Time)
	defer cancel()
	return d.open(ctx)
}

// page asks for one page, and returns where the next one begins (RFC 2696); empty: it was the last.
func (d *Directory) page(ctx context.Context, l *link, filter string, paging *ldap.ControlPaging) ([]*ldap.Entry, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, d.o.Time)
	defer cancel()
	r, err := l.searched(ctx, ldap.ScopeWholeSubtree, d.o.Base, filter, d.attributes(), 0, maxBatch, paging)
	if err != nil {
		return nil, nil, err
	}
	if c, ok := ldap.FindControl(r.Controls, ldap.ControlTypePaging).(*ldap.ControlPaging); ok {
		return r.Entries, c.Cookie, nil
	}
	return r.Entries, nil, nil // a server that knows no pages gave all, or an error
}
