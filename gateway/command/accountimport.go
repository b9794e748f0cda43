package command

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"postern/authstore"
	"postern/gateway"
	"postern/gateway/directory"
	"postern/gateway/view"
)

func accountImport(e *env) *cobra.Command {
	var dry, skip bool
	var from, filter string
	c := e.jsonFlag(&cobra.Command{
		Use:   "import FILE.csv | import --from ldap",
		Short: "Add many accounts, with their aliases, backend names and ties",
		Long: `Reads a CSV file ("-": standard input) whose first line names the columns:
address, and any of aliases (several are separated by blanks), backend_name,
issuer and subject (who the person is at an OpenID Connect provider or in the
directory). Spreadsheets' semicolons and UTF-16 are understood.

With --from ldap the list comes from the directory of [portal.ldap]: all who could
sign in, or those among them whom --filter chooses; each account is bound to its
person at once.

Accounts that are missing are made; those that are there get what they lack.
Nothing is ever taken away, so the same file may be imported again. Where a line
is wrong nothing is done at all, but with --skip-wrong the others are.`,
		Example: "  postern account import people.csv --dry-run\n  postern account import people.csv\n" +
			"  postern account import --from ldap --filter '(ou=sales)' --dry-run",
		Args: func(c *cobra.Command, args []string) error {
			switch {
			case from == "":
				return cobra.ExactArgs(1)(c, args)
			case from != "ldap":
				return fmt.Errorf("--from %q is unknown; there is --from ldap", from)
			}
			return cobra.NoArgs(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			if from != "" {
				return e.withDesk(c.Context(), func(d *gateway.Desk) error {
					list, err := d.ListDirectory(c.Context(), filter)
					if err != nil {
						return err
					}
					return e.importAccounts(c, d, list, nil, dry, skip)
				})
			}
			if filter != "" {
				return &usageError{errors.New("--filter needs --from ldap")}
			}
			list, err := readAccounts(c.InOrStdin(), args[0])
			if _, names := errors.AsType[*fs.PathError](err); err != nil && !names {
				err = fmt.Errorf("%s: %w", args[0], err)
			}
			if err != nil {
				return err
			}
			return e.withDesk(c.Context(), func(d *gateway.Desk) error {
				dir, err := d.OwnDirectory()
				if errors.Is(err, gateway.ErrNoDirectory) {
					return e.importAccounts(c, d, list, nil, dry, skip)
				}
				if err != nil {
					return err
				}
				defer dir.Close()
				return e.importAccounts(c, d, list, dir, dry, skip)
			})
		},
	})
	c.Flags().BoolVar(&dry, "dry-run", false, "say what would be done, and do nothing")
	c.Flags().StringVar(&from, "from", "", "\"ldap\": the directory of [portal.ldap], instead of a file")
	c.Flags().StringVar(&filter, "filter", "", "with --from ldap: an LDAP filter that chooses among the people there")
	c.Flags().BoolVar(&skip, "skip-wrong", false, "leave wrong lines out and do the others")
	return c
}

func readAccounts(stdin io.Reader, path string) ([]gateway.Wanted, error) {
	if path == "-" {
		return gateway.ReadAccountList(stdin)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return gateway.ReadAccountList(f)
}

// importAccounts plans, does unless it is a dry run, and tells of a list from wherever; dir is as in PlanImport.
func (e *env) importAccounts(c *cobra.Command, d *gateway.Desk, list []gateway.Wanted, dir *directory.Directory, dry, skip bool) error {
	plan, err := d.PlanImport(c.Context(), list, dir)
	if err != nil {
		return err
	}
	if !dry {
		err = d.ApplyImport(c.Context(), actor(), plan, skip)
		if err != nil && !errors.Is(err, gateway.ErrWrongLines) {
			return err
		}
	}
	if e.json {
		err = errors.Join(err, printJSON(c.OutOrStdout(), plan.View()))
	} else {
		printImport(c.OutOrStdout(), plan)
	}
	if err == nil && dry && !skip && plan.Count(gateway.Wrong) > 0 {
		return errors.New("some lines are wrong; without --dry-run nothing would be imported, and with --skip-wrong the others")
	}
	if errors.Is(err, gateway.ErrWrongLines) {
		return fmt.Errorf("%w; mend them, or leave them out with --skip-wrong", err)
	}
	return err
}

func printImport(w io.Writer, plan *gateway.Import) {
	for i := range plan.Lines {
		l := &plan.Lines[i]
		if l.Outcome == gateway.Unchanged {
			continue
		}
		text := fmt.Sprintf("%s: %s %s", l.Where, l.Outcome, l.Address)
		if more := l.Text(); more != "" {
			text += ": " + more
		}
		fmt.Fprintln(w, printable(text))
	}
	did := "nothing was done; it would be"
	if plan.Done {
		did = "done"
	}
	fmt.Fprintf(w, "%s: %d added, %d changed, %d unchanged, %d wrong\n", did,
		plan.Count(gateway.Added), plan.Count(gateway.Changed), plan.Count(gateway.Unchanged), plan.Count(gateway.Wrong))
}

func accountPrimaryChanged(e *env) *cobra.Command {
	var yes bool
	c := e.jsonFlag(&cobra.Command{
		Use:   "primary-changed ADDRESS",
		Short: "Say that the primary password was changed elsewhere: revokes all app passwords and ends all sessions",
		Long: `For a primary password that another server keeps, and that was changed there
because somebody else may know it. All app passwords of the account are revoked,
its sessions at the portal end, and its owner is told by mail.

Programs say the same by the API: POST /api/v1/primary-changed (docs/api.md).`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.withAccount(c, args[0], func(d *gateway.Desk, a authstore.Account) error {
				if !yes && !confirmed(c, fmt.Sprintf("Revoke all %d active app passwords of %s and end all sessions?", a.Passwords, a.Names[0])) {
					return errors.New("nothing was revoked; to do it without being asked: --yes")
				}
				n, done, err := d.PrimaryChanged(c.Context(), actor(), a.ID)
				if err != nil {
					return err
				}
				did := fmt.Sprintf("revoked %d app passwords of %s and ended all sessions", n, a.Names[0])
				if e.json {
					return printJSON(c.OutOrStdout(), view.PrimaryChanged{Confirmation: view.NewConfirmation(did, done), Address: a.Names[0], Revoked: n})
				}
				return e.printConfirmation(c.OutOrStdout(), did, done)
			})
		},
	})
	c.Flags().BoolVarP(&yes, "yes", "y", false, "don't ask")
	return c
}
