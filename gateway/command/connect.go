package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"postern/authstore"
	"postern/gateway"
	"postern/gateway/upstreamtoken"
	"postern/gateway/view"
)

// withConnections is withAccount for commands about its connections to authorization servers.
func (e *env) withConnections(c *cobra.Command, address string, do func(*upstreamtoken.Keeper, authstore.Account) error) error {
	return e.withAccount(c, address, func(d *gateway.Desk, a authstore.Account) error {
		k, err := d.Connections()
		if err != nil {
			return err
		}
		defer k.Close()
		return do(k, a)
	})
}

func accountConnections(e *env) *cobra.Command {
	return e.jsonFlag(&cobra.Command{
		Use:   "connections ADDRESS",
		Short: "List an account's connections to servers that want OAuth",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.withConnections(c, args[0], func(k *upstreamtoken.Keeper, a authstore.Account) error {
				list, err := k.Connections(c.Context(), a)
				if err != nil {
					return err
				}
				var rows [][]string
				for _, one := range list {
					rows = append(rows, []string{one.Provider, string(one.State), day(one.Since), map[bool]string{true: "yes", false: "no"}[one.Needed], cmp.Or(one.Code, "-")})
				}
				if e.json {
					return printJSON(c.OutOrStdout(), view.NewConnections(list))
				}
				return table(c.OutOrStdout(), []string{"PROVIDER", "STATE", "SINCE", "NEEDED", "FAILURE"}, rows)
			})
		},
	})
}

// codeView is what a person needs who consents at another screen, as --json prints it.
type codeView struct {
	At       string    `json:"verification_uri"`
	Complete string    `json:"verification_uri_complete,omitempty"`
	Code     string    `json:"user_code"`
	Until    time.Time `json:"expires"`
}

func accountConnect(e *env) *cobra.Command {
	var provider string
	c := e.jsonFlag(&cobra.Command{
		Use:   "connect ADDRESS",
		Short: "Connect an account to a server that wants OAuth, by a code that its person types in there",
		Long: `Prints an address and a code. The account's person opens the address in any browser,
signs in there, and types the code in; the command waits for that. Mostly people do
it themselves at the portal. Not every server takes codes: Google's do not for mail.`,
		Example: "  postern account connect alice@example.org --provider microsoft",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.withConnections(c, args[0], func(k *upstreamtoken.Keeper, a authstore.Account) error {
				d, err := k.StartDevice(c.Context(), provider)
				switch {
				case errors.Is(err, upstreamtoken.ErrUnknown):
					return fmt.Errorf("there is no [[oauth]] %q with flow = \"person\"", provider)
				case errors.Is(err, upstreamtoken.ErrNoDevice):
					return errors.New("that server takes no codes; let the account's person connect it at the portal")
				case err != nil:
					return err
				}
				if e.json {
					err = printJSON(c.OutOrStdout(), codeView{d.At, d.Complete, d.Code, d.Until})
				} else {
					_, err = fmt.Fprintf(c.OutOrStdout(), "Open      %s\nType in   %s\nSign in as %s. Waiting until %s ...\n", printable(d.At), printable(d.Code),
						k.Hint(a, provider), d.Until.Local().Format("15:04"))
				}
				if err != nil {
					return err
				}
				if err := k.WaitDevice(c.Context(), actor(), a, d); err != nil {
					return connectError(c.Context(), err)
				}
				if e.json {
					return printJSON(c.OutOrStdout(), map[string]string{"done": "connected " + a.Names[0] + " to " + provider})
				}
				_, err = fmt.Fprintf(c.OutOrStdout(), "connected %s to %s\n", a.Names[0], provider)
				return err
			})
		},
	})
	c.Flags().StringVar(&provider, "provider", "", "the name of the [[oauth]] in the configuration")
	c.MarkFlagRequired("provider")
	return c
}

// connectError says why nothing came of a code.
func connectError(ctx context.Context, err error) error {
	denied, refused := errors.AsType[*upstreamtoken.Denied](err)
	other, isOther := errors.AsType[*upstreamtoken.OtherPerson](err)
	switch {
	case isOther:
		return fmt.Errorf("somebody signed in there as %s, which is another mailbox; nothing was connected", printable(other.Address))
	case refused && denied.Code == "access_denied":
		return errors.New("it was not allowed there; nothing was connected")
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		return errors.New("the code has ended before it was typed in; nothing was connected")
	}
	return err
}

func accountDisconnect(e *env) *cobra.Command {
	var provider string
	c := e.jsonFlag(&cobra.Command{
		Use:   "disconnect ADDRESS",
		Short: "Remove an account's connection to a server that wants OAuth",
		Long:  "Removes the connection, and has the server take the tokens back where it can. The app passwords stay.",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.withConnections(c, args[0], func(k *upstreamtoken.Keeper, a authstore.Account) error {
				revoked, err := k.Disconnect(c.Context(), actor(), a.ID, provider)
				if errors.Is(err, authstore.ErrNotFound) {
					return fmt.Errorf("%s is not connected to %q", a.Names[0], provider)
				}
				if err != nil {
					return err
				}
				if e.json {
					return printJSON(c.OutOrStdout(), view.Disconnected{Done: "disconnected " + a.Names[0] + " from " + provider, Revoked: revoked})
				}
				text := "the server has taken the tokens back"
				if !revoked {
					text = "the server has not taken the tokens back; its own list of apps may still have Postern"
				}
				_, err = fmt.Fprintf(c.OutOrStdout(), "disconnected %s from %s; %s\n", a.Names[0], provider, text)
				return err
			})
		},
	})
	c.Flags().StringVar(&provider, "provider", "", "the name of the [[oauth]] in the configuration")
	c.MarkFlagRequired("provider")
	return c
}
