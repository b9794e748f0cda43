package command

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"postern/gateway"
)

func backupCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "backup FILE",
		Short: "Write a copy of the database, while the gateway runs",
		Long: `Writes a consistent copy of the database to a new file. The key file is not in it: back it
up apart. A restored copy knows app passwords that were revoked after it was made;
revoke them again.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			path, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			// made first, so that nobody else can read it; SQLite takes an empty file
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return err
			}
			f.Close()
			return e.withDesk(c.Context(), func(d *gateway.Desk) error {
				if err := d.Backup(c.Context(), path); err != nil {
					os.Remove(path)
					return err
				}
				_, err := fmt.Fprintf(c.OutOrStdout(), "wrote %s\n", path)
				return err
			})
		},
	}
}
