package command

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"postern/authstore"
	"postern/authstore/identity"
	"postern/gateway"
	"postern/gateway/view"
)

func accountTies(e *env) *cobra.Command {
	return e.jsonFlag(&cobra.Command{
		Use:   "ties ADDRESS",
		Short: "List whom an account is bound to at the servers where people sign in",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.withPeople(c, args[0], func(_ *gateway.Desk, p *identity.People, a authstore.Account) error {
				o, err := p.Overview(c.Context(), a.ID)
				if err != nil {
					return err
				}
				if e.json {
					return printJSON(c.OutOrStdout(), view.NewTies(o.Ties))
				}
				var rows [][]string
				for _, t := range o.Ties {
					rows = append(rows, []string{printable(t.Issuer), printable(t.Subject), day(t.Created), day(t.Seen), printable(strings.Join(t.Groups, ", "))})
				}
				return table(c.OutOrStdout(), []string{"ISSUER", "SUBJECT", "SINCE", "SEEN", "GROUPS"}, rows)
			})
		},
	})
}

// withPeople is withAccount for commands about how people sign in.
func (e *env) withPeople(c *cobra.Command, address string, do func(*gateway.Desk, *identity.People, authstore.Account) error) error {
	return e.withAccount(c, address, func(d *gateway.Desk, a authstore.Account) error {
		p, err := d.People()
		if err != nil {
			return err
		}
		return do(d, p, a)
	})
}

const tieWords = `An account belongs to one person at the server where people sign in: by an
OpenID Connect issuer and the subject there, or "ldap" and what the directory has
in subject_attribute. That is noted at the first sign-in, and stays when addresses
change.`

func accountTie(e *env) *cobra.Command {
	var issuer string
	c := e.jsonFlag(&cobra.Command{
		Use:   "tie ADDRESS SUBJECT",
		Short: "Bind an account to a person at the server where people sign in",
		Long: tieWords + ` With this command an administrator
says whose an account is before the first sign-in. The account's sessions at the portal end; app passwords stay.`,
		Example: "  postern account tie alice@example.org 248289761001",
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return e.withPeople(c, args[0], func(d *gateway.Desk, p *identity.People, a authstore.Account) error {
				from, err := issuerOf(d, issuer)
				if err != nil {
					return err
				}
				ended, err := d.Tie(c.Context(), actor(), a.ID, from, args[1])
				if errors.Is(err, identity.ErrTied) {
					return fmt.Errorf("%s is bound to another person of %s, or %s to another account; take that back with \"postern account untie\" first", a.Names[0], from, args[1])
				}
				if err != nil {
					return err
				}
				return e.printTied(c, fmt.Sprintf("bound %s to %s of %s", a.Names[0], args[1], from), ended)
			})
		},
	})
	c.Flags().StringVar(&issuer, "issuer", "", "another issuer than the one that people sign in at; \"ldap\" is the directory")
	return c
}

func accountUntie(e *env) *cobra.Command {
	var issuer string
	c := e.jsonFlag(&cobra.Command{
		Use:   "untie ADDRESS",
		Short: "Take back what binds an account to a person at the server where people sign in",
		Long: tieWords + ` After this command the account is bound
anew by the next sign-in of somebody who has its address there. Its sessions at
the portal end; app passwords stay, so look whose they are: "postern password list".`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.withPeople(c, args[0], func(d *gateway.Desk, p *identity.People, a authstore.Account) error {
				from, err := issuerOf(d, issuer)
				if err != nil {
					return err
				}
				ended, err := d.Untie(c.Context(), actor(), a.ID, from)
				if errors.Is(err, authstore.ErrNotFound) {
					return fmt.Errorf("%s is bound to nobody of %s; \"postern account ties\" lists whom it is bound to", a.Names[0], from)
				}
				if err != nil {
					return err
				}
				return e.printTied(c, fmt.Sprintf("%s is bound to nobody of %s any more", a.Names[0], from), ended)
			})
		},
	})
	c.Flags().StringVar(&issuer, "issuer", "", "another issuer than the one that people sign in at; \"ldap\" is the directory")
	return c
}

// issuerOf is the issuer that was named, or that of the configuration.
func issuerOf(d *gateway.Desk, named string) (string, error) {
	if named == "" {
		named = d.Issuer()
	}
	if named == "" {
		return "", errors.New("people sign in here, at no other server; name one with --issuer (\"postern account ties\" lists them)")
	}
	return named, nil
}

func (e *env) printTied(c *cobra.Command, did string, ended int) error {
	if e.json {
		return printJSON(c.OutOrStdout(), struct {
			Done  string `json:"done"`
			Ended int    `json:"ended"`
		}{did, ended})
	}
	_, err := fmt.Fprintf(c.OutOrStdout(), "%s; sessions ended: %d\n", did, ended)
	return err
}
