package command

import (
	"fmt"

	"github.com/spf13/cobra"

	"postern/gateway/ops"
)

func healthcheckCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask the running gateway whether it takes logins",
		Long:  "Asks /readyz on the operations listener of the configuration. Exit code 0: it takes logins.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := loadConfig(e.config)
			if err != nil {
				return err
			}
			text, err := (&ops.Client{Address: cfg.Operations.Address}).Ready(c.Context())
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(c.OutOrStdout(), text)
			return err
		},
	}
}
