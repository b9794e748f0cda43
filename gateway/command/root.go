// Package command is the command line: one file per subcommand. It reads the configuration and leaves the work to package
// gateway and authstore.
package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"
)

// defaultConfig is where the packages and the service unit look.
const defaultConfig = "/etc/postern/postern.toml"

// env is what all subcommands share.
type env struct {
	config string // --config
	json   bool   // --json
	log    *slog.Logger
}

// Run executes one command line and returns the exit code: 0, 1 where something is wrong, 2 where the command line is.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot(warnings(stderr))
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errReported):
		return 1
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		fmt.Fprintln(stderr, "postern: interrupted")
		return 1
	}
	fmt.Fprintf(stderr, "postern: %v\n", err)
	if _, ok := errors.AsType[*usageError](err); ok {
		return 2
	}
	return 1
}

// errReported says that the command has printed already what is wrong.
var errReported = errors.New("reported")

// usageError is a fault of the command line itself.
type usageError struct{ error }

// warnings is the log of commands that end soon: what needs somebody, without the time.
func warnings(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

func newRoot(log *slog.Logger) *cobra.Command {
	e := &env{log: log}
	root := &cobra.Command{
		Use:   "postern",
		Short: "App passwords for mail, calendars and contacts",
		Long: `Postern stands in front of your mail, calendar and contacts servers. Apps log in
with the mail address and an app password; Postern checks it and logs in to the
server with a credential of its own.

A first look, with nothing else installed:  postern demo
A configuration to start from:              postern config example`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &usageError{fmt.Errorf("%w; see \"%s --help\"", err, c.CommandPath())}
	})
	root.PersistentFlags().StringVarP(&e.config, "config", "c", defaultConfig, "configuration file")
	root.AddCommand(
		serveCommand(e), demoCommand(), checkCommand(e), configCommand(), initCommand(e),
		accountCommand(e), passwordCommand(e), sessionCommand(e), directoryCommand(e), keyCommand(e), tokenCommand(e), backupCommand(e), healthcheckCommand(e), benchCommand(), versionCommand(),
	)
	usageErrors(root)
	return root
}

// usageErrors turns complaints about arguments and missing flags into usage errors, for the exit code, with the way to help.
func usageErrors(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			err := check(c, args)
			if err != nil && strings.Contains(c.Use, " ") {
				err = fmt.Errorf("%w: %s", err, c.UseLine())
			}
			err = cmp.Or(err, c.ValidateRequiredFlags(), c.ValidateFlagGroups())
			if err != nil {
				return &usageError{fmt.Errorf("%w; see \"%s --help\"", err, c.CommandPath())}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		usageErrors(sub)
	}
}

// group is a command that only has subcommands.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		return c.Help()
	}}
	c.AddCommand(subs...)
	return c
}
