package command

import (
	"io"

	"github.com/spf13/cobra"

	"postern/config"
)

func configCommand() *cobra.Command {
	print := func(use, short string, text func() string) *cobra.Command {
		return &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
			_, err := io.WriteString(c.OutOrStdout(), text())
			return err
		}}
	}
	return group("config", "Print a configuration to start from",
		print("defaults", "Print the full annotated file, every key at its default", config.Defaults),
		print("example", "Print what a site with Dovecot, Postfix and Radicale needs", config.Example))
}

// loadConfig reads the configuration file.
func loadConfig(path string) (*config.Config, error) { return config.Load(path) }
