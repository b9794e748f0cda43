package command

import (
	"fmt"

	"github.com/spf13/cobra"

	"postern/gateway"
)

func checkCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Say what is wrong with the configuration and what it names",
		Long: `Reads the configuration, loads the certificates, opens the stores and logs in to each
backend for an account that is there; looks at what the portal and its notices need.
Exit code 1 if something is wrong.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			out := c.OutOrStdout()
			cfg, err := loadConfig(e.config)
			if err != nil {
				fmt.Fprintln(out, err)
				return errReported
			}
			fmt.Fprintf(out, "ok    configuration: %s\n", e.config)
			faults := 0
			gateway.Check(c.Context(), cfg, func(f gateway.Finding) {
				fmt.Fprintln(out, f.Text())
				if f.Err != nil {
					faults++
				}
			})
			if faults > 0 {
				return errReported
			}
			return nil
		},
	}
}
