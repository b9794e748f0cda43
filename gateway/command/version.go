package command

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"postern/gateway/version"
)

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(c.OutOrStdout(), "postern %s (%s, %s/%s)\n", version.Text(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
