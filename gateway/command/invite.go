package command

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"postern/authstore"
	"postern/authstore/identity"
	"postern/gateway"
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
					return printJSON(c.OutOrStdout(), viewInvitation(link, i))
				}
				return printInvitation(c.OutOrStdout(), link, i)
			})
		},
	})
	c.Flags().BoolVar(&newFactor, "new-factor", false, "keep the primary password, which the link then asks for")
	return c
}

// invitationView is a link as --json prints it.
type invitationView struct {
	Address     string    `json:"address"`
	Link        string    `json:"link"`
	Expires     time.Time `json:"expires"`
	SetsPrimary bool      `json:"sets_primary_password"`
	Revokes     int       `json:"revokes_app_passwords"`
}

func viewInvitation(link string, i identity.Invitation) invitationView {
	return invitationView{i.Address, link, i.Expires, i.SetsPrimary, i.Revokes}
}

func printInvitation(w io.Writer, link string, i identity.Invitation) error {
	does := "asks for the primary password and sets up a new second factor"
	if i.SetsPrimary {
		does = "sets a new primary password and a new second factor"
	}
	ends := "Second factors of before and sessions at the portal end with it."
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
