package command

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"postern/authstore"
	"postern/authstore/identity"
	"postern/gateway"
	"postern/gateway/directory"
	"postern/gateway/view"
)

func accountInvite(e *env) *cobra.Command {
	var newFactor bool
	c := e.jsonFlag(&cobra.Command{
		Use:   "invite ADDRESS",
		Short: "Make a link with which somebody sets up signing in at the portal",
		Long: `Makes a link to the portal for one account. Who opens it sets a new primary
password (where Postern keeps them) and a new second factor; what there was ends
then. With --new-factor the primary password stays and is asked for. The link is
good once, for 72 hours; one that was made before is not valid any more.`,
		Example: "  postern account invite alice@example.org\n  postern account invite alice@example.org --new-factor   # the phone is lost, the password is not",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			purpose := identity.Begin
			if newFactor {
				purpose = identity.NewFactor
			}
			return e.withAccount(c, args[0], func(d *gateway.Desk, a authstore.Account) error {
				link, i, err := d.Invite(c.Context(), actor(), a.ID, purpose)
				if err != nil {
					return err
				}
				if e.json {
					return printJSON(c.OutOrStdout(), view.NewInvitation(link, i))
				}
				return printInvitation(c.OutOrStdout(), link, i)
			})
		},
	})
	c.Flags().BoolVar(&newFactor, "new-factor", false, "keep the primary password, which the link then asks for")
	return c
}

func printInvitation(w io.Writer, link string, i identity.Invitation) error {
	does := "asks for the primary password and sets up a new second factor"
	if i.SetsPrimary {
		does = "sets a new primary password and a new second factor"
	}
	ends := "Older second factors, recovery codes and sessions at the portal end with it."
	switch {
	case i.Revokes == 1:
		ends += " So does the app password."
	case i.Revokes > 1:
		ends += fmt.Sprintf(" So do all %d app passwords.", i.Revokes)
	}
	_, err := fmt.Fprintf(w, "\n    %s\n\nGive it to %s and nobody else. It is good once, until %s, and is shown only now.\nIt %s.\n%s\n",
		link, i.Address, day(i.Expires), does, ends)
	return err
}

func accountSignOut(e *env) *cobra.Command {
	return e.jsonFlag(&cobra.Command{
		Use:   "sign-out ADDRESS",
		Short: "End all of an account's sessions at the portal; apps stay logged in",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.withAccount(c, args[0], func(d *gateway.Desk, a authstore.Account) error {
				people, err := d.People()
				if err != nil {
					return err
				}
				n, err := people.SignOutAll(c.Context(), actor(), a.ID)
				if err != nil {
					return err
				}
				if e.json {
					return printJSON(c.OutOrStdout(), view.Ended{Ended: n})
				}
				_, err = fmt.Fprintf(c.OutOrStdout(), "signed %s out of the portal: sessions ended: %d\n", a.Names[0], n)
				return err
			})
		},
	})
}

func accountResetFactors(e *env) *cobra.Command {
	var yes bool
	c := e.jsonFlag(&cobra.Command{
		Use:   "reset-factors ADDRESS",
		Short: "Take away an account's second factors and recovery codes at the portal, for who has lost them all",
		Long: `Takes away all second factors and recovery codes of an account, and ends its
sessions at the portal. Its owner is told by mail; app passwords stay. Where people
sign in at an OpenID Connect provider, or a directory or IMAP server has their
primary passwords, the next sign-in sets up a new second factor: make sure that it
will be its owner's. Elsewhere a link does ("postern account invite --new-factor"),
which needs no such command before.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.withPeople(c, args[0], func(d *gateway.Desk, people *identity.People, a authstore.Account) error {
				o, err := people.Overview(c.Context(), a.ID)
				if err != nil {
					return err
				}
				if !yes && !confirmed(c, fmt.Sprintf("Take away all %d second factors and the recovery codes of %s?", len(view.NewPortal(o).Factors), a.Names[0])) {
					return errors.New("nothing was taken away; to do it without being asked: --yes")
				}
				if err := people.ResetFactors(c.Context(), actor(), a.ID); err != nil {
					return err
				}
				did := "took away the second factors of " + a.Names[0]
				if e.json {
					return printJSON(c.OutOrStdout(), map[string]string{"done": did})
				}
				next := "the next sign-in sets up a new one"
				if people.ByInvitation() {
					next = fmt.Sprintf("\"postern account invite %s --new-factor\" makes the link that sets up a new one", a.Names[0])
				}
				_, err = fmt.Fprintf(c.OutOrStdout(), "%s; %s\n", did, next)
				return err
			})
		},
	})
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

// overview tells how an account signs in; nil: there is no portal.
func overview(ctx context.Context, d *gateway.Desk, id authstore.AccountID) (*view.Portal, error) {
	people, err := d.People()
	if errors.Is(err, gateway.ErrNoPortal) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	o, err := people.Overview(ctx, id)
	if err != nil {
		return nil, err
	}
	return view.NewPortal(o), nil
}

func printPortal(w io.Writer, v *view.Portal, d *gateway.Desk) {
	if v == nil {
		return
	}
	primary, factors, keeps, server := "set", "none", d.KeepsPrimary(), "the server of [portal.imap]"
	if d.Issuer() == directory.Issuer {
		server = "the directory of [portal.ldap]"
	}
	switch {
	case d.Vouched():
		primary = "none here; people sign in at the provider of [portal.oidc]"
	case !keeps && v.Primary:
		primary = server + " has it"
	case !keeps:
		primary = server + " has it; nobody has signed in yet"
	case !v.Primary:
		primary = "not set; its owner begins with the link of \"postern account invite\""
	}
	for i, f := range v.Factors {
		if i == 0 {
			factors = ""
		} else {
			factors += ", "
		}
		factors += fmt.Sprintf("%s %q", f.Kind, printable(f.Label))
	}
	fmt.Fprintf(w, "primary       %s\nfactors       %s\nrecovery      %d codes left\nsigned in     %d at the portal\n", primary, factors, v.Recovery, len(v.Sessions))
}
