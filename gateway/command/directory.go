package command

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"postern/gateway"
	"postern/gateway/directory"
)

func directoryCommand(e *env) *cobra.Command {
	return group("directory", "The LDAP directory: look who is there still, see what the last look found", directoryLook(e), directoryStatus(e))
}

func directoryLook(e *env) *cobra.Command {
	var o directory.LookOptions
	c := e.jsonFlag(&cobra.Command{
		Use:   "look",
		Short: "Compare all accounts that are bound to people of the directory with it, now",
		Long: `Does now what the gateway does every look_every: accounts whose people are gone or
disabled are suspended, those of people who are back go on, and where a primary
password was changed all app passwords are revoked.

A directory that suddenly lost more than a tenth of its people, or says of as many at
once that their password was changed, is not believed, and nothing is changed. If you
know that it is so, say --accept-losses; with --dry-run you see about whom first.
Exit code 1 if nothing was changed for such a reason, or the directory does not answer.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return e.withDesk(c.Context(), func(d *gateway.Desk) error {
				k, err := d.Looker()
				if err != nil {
					return err
				}
				r, err := k.Look(c.Context(), o)
				if err != nil {
					return err
				}
				return e.printReport(c.OutOrStdout(), r)
			})
		},
	})
	c.Flags().BoolVar(&o.DryRun, "dry-run", false, "change nothing, and say what would be done")
	c.Flags().BoolVar(&o.Accept, "accept-losses", false, "believe it however many are gone, disabled or have another password")
	return c
}

func directoryStatus(e *env) *cobra.Command {
	return e.jsonFlag(&cobra.Command{
		Use:   "status",
		Short: "Say what the last look into the directory found",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return e.withDesk(c.Context(), func(d *gateway.Desk) error {
				k, err := d.Looker()
				if err != nil {
					return err
				}
				r, err := k.Last(c.Context())
				if err != nil {
					return err
				}
				if r == nil {
					_, err := fmt.Fprintln(c.OutOrStdout(), `nobody has looked yet; the gateway does it every look_every, and "postern directory look" now`)
					return err
				}
				return e.printReport(c.OutOrStdout(), r)
			})
		},
	})
}

// printReport tells what a look found. Where nothing was changed because the directory is not believed, the error is errReported.
func (e *env) printReport(w io.Writer, r *directory.Report) error {
	var failed error
	if r.Problem != "" {
		failed = errReported
	}
	if e.json {
		if err := printJSON(w, r); err != nil {
			return err
		}
		return failed
	}
	fmt.Fprintf(w, "looked        %s, in %v\n", day(r.At), r.Took.Round(time.Millisecond))
	would := ""
	if r.Dry || r.Problem != "" {
		would = "would be "
	}
	if r.Problem == "" || r.Held { // else it has not got through
		fmt.Fprintf(w, "accounts      %d bound to people of the directory, %d of these are there\n", r.Accounts, r.Present)
		fmt.Fprintf(w, "gone          %d accounts of people who are gone or disabled %ssuspended\n", r.Lost, would)
		fmt.Fprintf(w, "returned      %d suspended accounts of people who are there again %sresumed\n", r.Back, would)
		fmt.Fprintf(w, "changed       %d primary passwords were changed; the accounts' app passwords %srevoked\n", r.Changed, would)
	}
	for _, n := range r.Named {
		fmt.Fprintf(w, "  %-8s    %s\n", n.What, printable(n.Address))
	}
	if all := r.Lost + r.Back + r.Changed; all > len(r.Named) {
		fmt.Fprintf(w, "  and %d more\n", all-len(r.Named))
	}
	for _, n := range r.Renamed {
		fmt.Fprintf(w, "renamed       %s is %s in the directory\n", printable(n.Address), printable(n.What))
	}
	if r.Problem != "" {
		fmt.Fprintf(w, "PROBLEM       %s\nlast good     %s\n", printable(r.Problem), day(r.Good))
	}
	return failed
}
