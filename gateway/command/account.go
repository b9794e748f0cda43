package command

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"postern/authstore"
	"postern/gateway"
	"postern/gateway/view"
)

func accountCommand(e *env) *cobra.Command {
	return group("account", "People: add, invite, list, suspend, remove",
		accountAdd(e), accountList(e), accountShow(e),
		accountStatus(e, "suspend", "Refuse all logins and end all sessions, keeping the app passwords", (*authstore.Accounts).Suspend),
		accountStatus(e, "resume", "Let a suspended account log in again", (*authstore.Accounts).Resume),
		accountRemove(e), accountAdmin(e), accountInvite(e), accountResetFactors(e), accountSignOut(e), accountAlias(e), accountBackendName(e), accountCredential(e), accountCollections(e),
		accountConnections(e), accountConnect(e), accountDisconnect(e),
		accountImport(e), accountPrimaryChanged(e), accountTies(e), accountTie(e), accountUntie(e),
	)
}

// detail writes what stands in an event for programs as words for a table.
func detail(e authstore.Event) string {
	switch e.Kind {
	case authstore.KindFirstUse, authstore.KindNewUse:
		u, err := authstore.ParseNewUse(e.Detail)
		if err != nil {
			break
		}
		words := []string{fmt.Sprintf("app password %d", e.Password), u.Protocol, u.App, u.Network.String(), u.Operator}
		return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), ", ")
	case "primary.changed":
		return "app passwords revoked: " + e.Detail
	case "password.edited":
		edit, err := authstore.ParseEdited(e.Detail)
		if err != nil {
			break
		}
		words := []string{fmt.Sprintf("app password %d", e.Password)}
		if edit.From.Label != edit.To.Label {
			words = append(words, "label "+edit.To.Label)
		}
		if !edit.From.Expires.Equal(edit.To.Expires) {
			words = append(words, "expires "+day(edit.To.Expires))
		}
		if !slices.Equal(edit.From.Networks, edit.To.Networks) {
			words = append(words, fmt.Sprintf("networks %v", edit.To.Networks))
		}
		return strings.Join(words, ", ")
	}
	return e.Detail
}

// withDesk opens what the configuration names, calls do and closes it again.
func (e *env) withDesk(ctx context.Context, do func(*gateway.Desk) error) error {
	cfg, err := loadConfig(e.config)
	if err != nil {
		return err
	}
	desk, err := gateway.OpenDesk(ctx, cfg, actor(), e.log)
	if err != nil {
		return err
	}
	defer desk.Close()
	return do(desk)
}

// withAccount is withDesk for commands about one account.
func (e *env) withAccount(c *cobra.Command, address string, do func(*gateway.Desk, authstore.Account) error) error {
	return e.withDesk(c.Context(), func(d *gateway.Desk) error {
		a, err := d.Get(c.Context(), address)
		if errors.Is(err, authstore.ErrNotFound) {
			return fmt.Errorf("there is no account %q; \"postern account list\" shows them all", address)
		}
		if err != nil {
			return err
		}
		return do(d, a)
	})
}

// actor names who types, for the history.
func actor() authstore.Actor {
	for _, name := range []string{"SUDO_USER", "USER", "LOGNAME"} {
		if u := os.Getenv(name); u != "" {
			return authstore.Actor{Name: "cli:" + u}
		}
	}
	return authstore.Actor{Name: "cli:uid" + strconv.Itoa(os.Getuid())}
}

func accountAdd(e *env) *cobra.Command {
	return e.jsonFlag(&cobra.Command{
		Use:     "add ADDRESS",
		Short:   "Add an account",
		Example: "  postern account add alice@example.org",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.withDesk(c.Context(), func(d *gateway.Desk) error {
				a, err := d.Add(c.Context(), args[0])
				if errors.Is(err, authstore.ErrNameTaken) {
					return fmt.Errorf("%q: %w", args[0], err)
				}
				if err != nil {
					return err
				}
				if e.json {
					return printJSON(c.OutOrStdout(), view.NewAccount(a))
				}
				next := "an app password: postern password create %[1]s --label Thunderbird --for everything"
				if d.HasPortal() {
					next = "a link for its owner: postern account invite %[1]s"
				}
				if site, with := d.OpenSite(); site != "" {
					next = "its owner signs in at " + site + " with " + with
				}
				_, err = fmt.Fprintf(c.OutOrStdout(), "added %s\nNext, "+next+"\n", a.Names[0])
				return err
			})
		},
	})
}

func accountList(e *env) *cobra.Command {
	return e.jsonFlag(&cobra.Command{
		Use:   "list",
		Short: "List all accounts",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return e.withDesk(c.Context(), func(d *gateway.Desk) error {
				accounts, err := d.List(c.Context())
				if err != nil {
					return err
				}
				if e.json {
					views := make([]view.Account, 0, len(accounts))
					for _, a := range accounts {
						views = append(views, view.NewAccount(a))
					}
					return printJSON(c.OutOrStdout(), views)
				}
				var rows [][]string
				for _, a := range accounts {
					rows = append(rows, []string{a.Names[0], a.Status.String(), yes(a.Admin), strconv.Itoa(a.Passwords), day(a.Created), strings.Join(a.Names[1:], " ")})
				}
				return table(c.OutOrStdout(), []string{"ADDRESS", "STATUS", "ADMINISTRATOR", "APP PASSWORDS", "CREATED", "ALIASES"}, rows)
			})
		},
	})
}

func accountShow(e *env) *cobra.Command {
	return e.jsonFlag(&cobra.Command{
		Use:   "show ADDRESS",
		Short: "Show one account, how it signs in at the portal, and its history",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.withAccount(c, args[0], func(d *gateway.Desk, a authstore.Account) error {
				events, err := d.Events(c.Context(), authstore.EventQuery{Account: a.ID, Limit: 20})
				if err != nil {
					return err
				}
				person, err := d.Person(c.Context(), a.ID)
				if err != nil {
					return err
				}
				portal, err := overview(c.Context(), d, a.ID)
				if err != nil {
					return err
				}
				out := c.OutOrStdout()
				if e.json {
					return printJSON(out, view.AccountDetail{Account: view.NewAccount(a), Ties: view.NewTies(person.Ties), Portal: portal, Events: view.NewEvents(events)})
				}
				fmt.Fprintf(out, "address       %s\naliases       %s\npublic id     %s\nstatus        %s\nadministrator %s\nbackend name  %s\ncreated       %s\napp passwords %d active of %d\n",
					a.Names[0], orDash(strings.Join(a.Names[1:], " ")), a.PublicID, a.Status, orDash(yes(a.Admin)), orDash(a.BackendName), day(a.Created), a.Passwords, authstore.MaxActive)
				for _, t := range person.Ties {
					fmt.Fprintf(out, "bound to      %s of %s\n", printable(t.Subject), printable(t.Issuer))
				}
				printPortal(out, portal, d)
				fmt.Fprintln(out)
				var rows [][]string
				for _, ev := range events {
					rows = append(rows, []string{day(ev.At), ev.Kind, ev.Actor.Name, printable(detail(ev))})
				}
				return table(out, []string{"WHEN", "WHAT", "BY", "DETAIL"}, rows)
			})
		},
	})
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// yes is how a table says that something is so.
func yes(so bool) string {
	if so {
		return "yes"
	}
	return ""
}

func accountAdmin(e *env) *cobra.Command {
	var revoke bool
	c := e.jsonFlag(&cobra.Command{
		Use:   "admin ADDRESS",
		Short: "Make somebody an administrator at the portal, or take that back",
		Long: `Lets the account's owner see and change other accounts at the portal, under
/admin (docs/administration.md). --revoke takes that back at once, also from who
is signed in. Members of the groups in [administration] are administrators
without it, and stay so.`,
		Example: "  postern account admin alice@example.org\n  postern account admin alice@example.org --revoke",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.withAccount(c, args[0], func(d *gateway.Desk, a authstore.Account) error {
				done, err := d.SetAdmin(c.Context(), a.ID, !revoke)
				if err != nil {
					return err
				}
				did := "made " + a.Names[0] + " an administrator"
				if revoke {
					did = a.Names[0] + " is no administrator any more"
				}
				return e.printConfirmation(c.OutOrStdout(), did, done)
			})
		},
	})
	c.Flags().BoolVar(&revoke, "revoke", false, "take it back")
	return c
}

// accountChange is a method of Accounts that changes an account and waits for the nodes.
type accountChange func(*authstore.Accounts, context.Context, authstore.AccountID) (authstore.Confirmation, error)

func accountStatus(e *env, use, short string, change accountChange) *cobra.Command {
	return e.jsonFlag(&cobra.Command{
		Use:   use + " ADDRESS",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.withAccount(c, args[0], func(d *gateway.Desk, a authstore.Account) error {
				done, err := change(d.Accounts, c.Context(), a.ID)
				if err != nil {
					return err
				}
				return e.printConfirmation(c.OutOrStdout(), pastTense[use]+" "+a.Names[0], done)
			})
		},
	})
}

var pastTense = map[string]string{"suspend": "suspended", "resume": "resumed"}

func accountRemove(e *env) *cobra.Command {
	var yes bool
	c := e.jsonFlag(&cobra.Command{
		Use:   "remove ADDRESS",
		Short: "Remove an account with its app passwords and history",
		Long:  "Removes the account, its app passwords and their history from Postern. Mail, calendars and contacts at the backends are not touched.",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.withAccount(c, args[0], func(d *gateway.Desk, a authstore.Account) error {
				if !yes && !confirmed(c, fmt.Sprintf("Remove %s and its %d active app passwords?", a.Names[0], a.Passwords)) {
					return errors.New("nothing was removed; to remove without being asked: --yes")
				}
				done, err := d.Remove(c.Context(), a.ID)
				if err != nil {
					return err
				}
				return e.printConfirmation(c.OutOrStdout(), "removed "+a.Names[0], done)
			})
		},
	})
	c.Flags().BoolVarP(&yes, "yes", "y", false, "don't ask")
	return c
}

// confirmed asks a yes-or-no question; no answer is a no.
func confirmed(c *cobra.Command, question string) bool {
	fmt.Fprintf(c.ErrOrStderr(), "%s [y/N] ", question)
	line, _ := bufio.NewReader(io.LimitReader(c.InOrStdin(), 64)).ReadString('\n')
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes"
}

func accountAlias(e *env) *cobra.Command {
	type method func(*authstore.Accounts, context.Context, authstore.AccountID, string) (authstore.Confirmation, error)
	sub := func(use, short, did string, change method) *cobra.Command {
		return e.jsonFlag(&cobra.Command{
			Use:   use + " ADDRESS ALIAS",
			Short: short,
			Args:  cobra.ExactArgs(2),
			RunE: func(c *cobra.Command, args []string) error {
				return e.withAccount(c, args[0], func(d *gateway.Desk, a authstore.Account) error {
					done, err := change(d.Accounts, c.Context(), a.ID, args[1])
					if errors.Is(err, authstore.ErrNotFound) { // nothing to remove
						if owner, err := d.Get(c.Context(), args[1]); err == nil && owner.ID == a.ID {
							return fmt.Errorf("%s is the address that the account was made with, and stays", a.Names[0])
						}
						return fmt.Errorf("%q is no alias of %s; \"postern account show\" lists them", args[1], a.Names[0])
					}
					if err != nil {
						return fmt.Errorf("alias %q: %w", args[1], err)
					}
					return e.printConfirmation(c.OutOrStdout(), did+" alias "+args[1], done)
				})
			},
		})
	}
	return group("alias", "Further addresses that an account may log in with",
		sub("add", "Add an alias", "added", (*authstore.Accounts).AddAlias),
		sub("remove", "Remove an alias", "removed", (*authstore.Accounts).RemoveAlias))
}

func accountBackendName(e *env) *cobra.Command {
	return e.jsonFlag(&cobra.Command{
		Use:   "backend-name ADDRESS [NAME]",
		Short: "Set the account's name towards backends; without NAME the backend's template decides again",
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			name := strings.Join(args[1:], "")
			return e.withAccount(c, args[0], func(d *gateway.Desk, a authstore.Account) error {
				done, err := d.SetBackendName(c.Context(), a.ID, name)
				if err != nil {
					return err
				}
				return e.printConfirmation(c.OutOrStdout(), "set the backend name of "+a.Names[0], done)
			})
		},
	})
}

func accountCredential(e *env) *cobra.Command {
	var backend, file string
	c := &cobra.Command{
		Use:   "credential ADDRESS",
		Short: "Store the account's own password at a backend whose credential is \"stored\"",
		Long: `Seals a backend's password for one account in the database. It is read from a
file, or from standard input with "-", never from the command line.`,
		Example: "  pass show imap/alice | postern account credential alice@example.org --backend hosted --password-file -",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			password, err := readSecret(c.InOrStdin(), file)
			if err != nil {
				return err
			}
			defer clear(password)
			return e.withAccount(c, args[0], func(d *gateway.Desk, a authstore.Account) error {
				if err := d.StoreBackendPassword(c.Context(), a.ID, backend, password); err != nil {
					return err
				}
				_, err := fmt.Fprintf(c.OutOrStdout(), "stored the password of %s at %s\n", a.Names[0], backend)
				return err
			})
		},
	}
	c.Flags().StringVar(&backend, "backend", "", "the backend's name in the configuration")
	c.Flags().StringVar(&file, "password-file", "", "file with the password on its first line; \"-\": standard input")
	c.MarkFlagRequired("backend")
	c.MarkFlagRequired("password-file")
	return c
}

// maxSecret bounds a password that is read from a file, in bytes.
const maxSecret = 4096

// readSecret reads the first line of a file.
func readSecret(stdin io.Reader, path string) ([]byte, error) {
	in, from := stdin, "standard input"
	if path != "-" {
		from = path
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	buf := make([]byte, maxSecret+1)
	n, err := io.ReadFull(in, buf)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if n > maxSecret {
		clear(buf)
		return nil, fmt.Errorf("%s is longer than %d bytes; the password stands alone on its first line", from, maxSecret)
	}
	line := buf[:n]
	for i, b := range line {
		if b == '\n' || b == '\r' {
			clear(line[i:])
			line = line[:i]
			break
		}
	}
	if len(line) == 0 {
		return nil, fmt.Errorf("%s holds no password on its first line", from)
	}
	return line, nil
}

// printConfirmation says what was done and whether every node has confirmed it.
func (e *env) printConfirmation(w io.Writer, did string, done authstore.Confirmation) error {
	if e.json {
		return printJSON(w, view.NewConfirmation(did, done))
	}
	_, err := fmt.Fprintf(w, "%s: %s\n", did, done)
	return err
}
