package command

import (
	"fmt"

	"github.com/spf13/cobra"

	"postern/gateway"
)

func initCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "init",
		Short: "Make the key file and the database that the configuration names",
		Long: `Makes the file with the root key and the database, readable by their owner only. Run it
once, as the user that runs the gateway or as root: made by root, they belong to the
owner of their folder. Back the key file up apart from the database: without it no
app password works, and with both together stored backend passwords can be read.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := loadConfig(e.config)
			if err != nil {
				return err
			}
			made, err := gateway.Init(c.Context(), cfg)
			for _, path := range made {
				fmt.Fprintf(c.OutOrStdout(), "made %s\n", path)
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), "Back the key file up, apart from the database.")
			return err
		},
	}
}
