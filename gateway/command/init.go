package command

import (
	"fmt"

	"github.com/spf13/cobra"

	"postern/gateway"
)

func initCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "init",
		Short: "Make the key file that the configuration names",
		Long: `Makes the file with the root key, readable by its owner only. Run it once, as the user
that runs the gateway. Back the file up apart from the database: without it no app
password works, and with both together stored backend passwords can be read.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := loadConfig(e.config)
			if err != nil {
				return err
			}
			if err := gateway.Init(cfg); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "made %s; back it up\n", cfg.KeyFile())
			return err
		},
	}
}
