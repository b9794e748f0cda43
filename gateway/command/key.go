package command

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"postern/gateway"
)

func keyCommand(e *env) *cobra.Command {
	return group("key", "Root keys: list, add, retire", keyList(e), keyAdd(e), keyRetire(e))
}

func keyList(e *env) *cobra.Command {
	return e.jsonFlag(&cobra.Command{
		Use:   "list",
		Short: "List the root keys and what needs them",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return e.withDesk(c.Context(), func(d *gateway.Desk) error {
				keys, err := d.Keys(c.Context())
				if err != nil {
					return err
				}
				if e.json {
					return printJSON(c.OutOrStdout(), keys)
				}
				var rows [][]string
				for _, k := range keys {
					role := ""
					if k.New {
						role = "makes new app passwords"
					}
					rows = append(rows, []string{strconv.Itoa(int(k.Number)), strconv.Itoa(k.Rows), strconv.Itoa(k.Nodes), role})
				}
				return table(c.OutOrStdout(), []string{"KEY", "NEEDED BY", "GATEWAYS THAT HAVE IT", ""}, rows)
			})
		},
	})
}

func keyAdd(e *env) *cobra.Command {
	return e.jsonFlag(&cobra.Command{
		Use:   "add",
		Short: "Add a root key to the key file",
		Long: `Adds a root key to the key file. Copy the file to every gateway and reload it (SIGHUP);
once all of them have the key, new app passwords are made with it and others move to
it when they are used next.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return e.withDesk(c.Context(), func(d *gateway.Desk) error {
				n, err := d.AddKey()
				if err != nil {
					return err
				}
				if e.json {
					return printJSON(c.OutOrStdout(), keyChange{Added: n})
				}
				_, err = fmt.Fprintf(c.OutOrStdout(), "added key %d; now have every gateway read it again (systemctl reload postern; restart where LoadCredential brings the file), and back it up\n", n)
				return err
			})
		},
	})
}

// keyChange is what was done to the key file as --json prints it.
type keyChange struct {
	Added   uint32 `json:"added,omitempty"`
	Retired uint32 `json:"retired,omitempty"`
}

func keyRetire(e *env) *cobra.Command {
	return e.jsonFlag(&cobra.Command{
		Use:   "retire NUMBER",
		Short: "Remove a root key that nothing needs any more",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			n, err := strconv.ParseUint(args[0], 10, 32)
			if err != nil {
				return &usageError{fmt.Errorf("%q is not the number of a key; \"postern key list\" shows them", printable(args[0]))}
			}
			return e.withDesk(c.Context(), func(d *gateway.Desk) error {
				if err := d.RetireKey(c.Context(), uint32(n)); err != nil {
					return err
				}
				if e.json {
					return printJSON(c.OutOrStdout(), keyChange{Retired: uint32(n)})
				}
				_, err := fmt.Fprintf(c.OutOrStdout(), "retired key %d; copy the key file to every gateway and reload it\n", n)
				return err
			})
		},
	})
}
