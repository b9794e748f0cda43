package command

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/authstore"
	"postern/gateway"
	"postern/gateway/view"
)

func passwordCommand(e *env) *cobra.Command {
	return group("password", "App passwords: create, list, revoke",
		passwordCreate(e), passwordList(e), passwordShow(e), passwordRevoke(e), passwordRevokeAll(e))
}

func passwordCreate(e *env) *cobra.Command {
	var label, preset, expires string
	var scopes, networks, only []string
	var beyond bool
	c := e.jsonFlag(&cobra.Command{
		Use:   "create ADDRESS",
		Short: "Make an app password and show it once",
		Long: "Makes an app password for one app. It is shown now and never again.\n\nPresets for --for:\n" + presetHelp() + `
With --only it opens single calendars and address books, which must be there: "postern account collections ADDRESS" lists them. Each kind that
it opens must be named; "calendar/*" and "contacts/*" are all of a kind, those made later as well. With single calendars there are no invitations.
`,
		Example: `  postern password create alice@example.org --label Thunderbird --for everything
  postern password create alice@example.org --label "Kitchen tablet" --for calendar-read --expires 90d
  postern password create alice@example.org --label "Team display" --for calendar-read --only calendar/work
  postern password create alice@example.org --label DAVx5 --for dav --only Family --only "contacts/*"`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			set, err := chooseScopes(preset, scopes)
			if err != nil {
				return &usageError{err}
			}
			until, err := parseExpiry(expires, time.Now())
			if err != nil {
				return &usageError{err}
			}
			from, err := parseNetworks(networks)
			if err != nil {
				return &usageError{err}
			}
			return e.withAccount(c, args[0], func(d *gateway.Desk, a authstore.Account) error {
				collections, titles, err := chooseCollections(c.Context(), d, a.Names[0], set, only)
				if err != nil {
					return err
				}
				p, secret, err := d.CreatePassword(c.Context(), authstore.PasswordRequest{
					Account: a.ID, Label: label, Scopes: set, Expires: until, Networks: from, Collections: collections, Titles: titles, BeyondPolicy: beyond})
				if _, ok := errors.AsType[*authstore.PolicyError](err); ok {
					return fmt.Errorf("%w; to make it all the same: --beyond-policy", err)
				}
				if err != nil {
					return err
				}
				defer secret.Clear()
				settings := d.Settings(a.Names[0], p.Scopes)
				if e.json {
					made := view.NewPassword(p)
					made.Secret, made.Settings = secret.Reveal(), &settings
					return printJSON(c.OutOrStdout(), made)
				}
				_, err = fmt.Fprintf(c.OutOrStdout(), "\n    %s\n\nApp password %d of %s (%s). It is shown only now.\n\n%s",
					secret.Reveal(), p.ID, a.Names[0], opens(p), settings)
				return err
			})
		},
	})
	c.Flags().StringVarP(&label, "label", "l", "", "what people call the app or device, such as \"Thunderbird on the laptop\"")
	c.Flags().StringVar(&preset, "for", "", "what it opens: "+strings.Join(presetNames(), ", "))
	c.Flags().StringSliceVar(&scopes, "scopes", nil, "exact scopes instead of a preset, such as mail,calendar:read")
	c.Flags().StringVar(&expires, "expires", "never", "never, a number of days such as 90d, or a date such as 2027-01-31")
	c.Flags().StringSliceVar(&networks, "network", nil, "networks it may be used from, such as 192.0.2.0/24; may be repeated (default: any)")
	c.Flags().StringArrayVar(&only, "only", nil, "a single calendar or address book that it opens: calendar/NAME, contacts/NAME, or its title; may be repeated (default: all)")
	c.Flags().BoolVar(&beyond, "beyond-policy", false, "make it though the account's [[policy]] does not allow that")
	c.MarkFlagRequired("label")
	c.RegisterFlagCompletionFunc("for", cobra.FixedCompletions(presetNames(), cobra.ShellCompDirectiveNoFileComp))
	return c
}

func presetNames() []string {
	var names []string
	for _, p := range authstore.Presets {
		names = append(names, p.Name)
	}
	return names
}

func presetHelp() string {
	var b strings.Builder
	for _, p := range authstore.Presets {
		fmt.Fprintf(&b, "  %-14s %s (%s)\n", p.Name, p.Title, strings.ReplaceAll(p.Scopes.String(), " ", ", "))
	}
	return b.String()
}

func chooseScopes(preset string, names []string) (authstore.Scopes, error) {
	switch {
	case preset == "" && len(names) == 0:
		return 0, fmt.Errorf("say what it opens, with --for: %s", strings.Join(presetNames(), ", "))
	case preset != "" && len(names) > 0:
		return 0, errors.New("--for and --scopes both say what it opens; leave one")
	case preset == "":
		set, err := authstore.ParseScopes(names...)
		if err == nil && set == authstore.ScopeSchedule {
			return 0, errors.New("schedule goes with calendars and opens nothing alone; add calendar")
		}
		return set, err
	}
	for _, p := range authstore.Presets {
		if p.Name == preset {
			return p.Scopes, nil
		}
	}
	return 0, fmt.Errorf("unknown preset %q; the presets are %s", preset, strings.Join(presetNames(), ", "))
}

// parseExpiry reads "never", "90d" or a date, which ends with that day in local time.
func parseExpiry(s string, now time.Time) (time.Time, error) {
	if s == "never" || s == "" {
		return time.Time{}, nil
	}
	var until time.Time
	if digits, ok := strings.CutSuffix(s, "d"); ok {
		days, err := strconv.Atoi(digits)
		if err != nil || days < 1 || days > 36500 {
			return time.Time{}, fmt.Errorf("--expires %q: the number of days is between 1d and 36500d", s)
		}
		until = now.AddDate(0, 0, days)
	} else {
		date, err := time.ParseInLocation(time.DateOnly, s, now.Location())
		if err != nil {
			return time.Time{}, fmt.Errorf("--expires %q is neither never, a number of days such as 90d, nor a date such as 2027-01-31", s)
		}
		until = date.AddDate(0, 0, 1)
	}
	if !until.After(now) {
		return time.Time{}, fmt.Errorf("--expires %s has passed already", s)
	}
	return until, nil
}

func parseNetworks(texts []string) ([]netip.Prefix, error) {
	var networks []netip.Prefix
	for _, s := range texts {
		p, err := netip.ParsePrefix(s)
		if a, aerr := netip.ParseAddr(s); aerr == nil {
			p, err = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("--network %q is neither an address nor a network such as 192.0.2.0/24", s)
		}
		networks = append(networks, p.Masked())
	}
	return networks, nil
}

func passwordList(e *env) *cobra.Command {
	var all bool
	c := e.jsonFlag(&cobra.Command{
		Use:   "list ADDRESS",
		Short: "List an account's app passwords",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.withAccount(c, args[0], func(d *gateway.Desk, a authstore.Account) error {
				passwords, err := d.Passwords(c.Context(), a.ID, all)
				if err != nil {
					return err
				}
				if e.json {
					return printJSON(c.OutOrStdout(), view.NewPasswords(passwords))
				}
				var rows [][]string
				for _, p := range passwords {
					rows = append(rows, []string{strconv.FormatInt(int64(p.ID), 10), p.Label, opens(p), view.State(p), day(p.Created), day(p.Expires), lastUsed(p.Last)})
				}
				return table(c.OutOrStdout(), []string{"ID", "LABEL", "OPENS", "STATE", "CREATED", "EXPIRES", "LAST USED"}, rows)
			})
		},
	})
	c.Flags().BoolVarP(&all, "all", "a", false, "those that have ended as well")
	return c
}

func lastUsed(l *authstore.LastUse) string {
	if l == nil {
		return "never"
	}
	return strings.TrimSpace(fmt.Sprintf("%s %s from %s %s", day(l.At), l.Protocol, l.Network, l.App))
}

// refusals tells how often a genuine secret opened nothing: its time was over, or it came by a protocol or from a network that it is not for.
func refusals(n int64) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprintf("%d times", n)
}

func passwordShow(e *env) *cobra.Command {
	return e.jsonFlag(&cobra.Command{
		Use:   "show ID",
		Short: "Show one app password; never its secret",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parseID(args[0])
			if err != nil {
				return err
			}
			return e.withDesk(c.Context(), func(d *gateway.Desk) error {
				p, err := d.Password(c.Context(), id)
				if err != nil {
					return passwordError(id, err)
				}
				if e.json {
					return printJSON(c.OutOrStdout(), view.NewPassword(p))
				}
				networks := "any"
				if len(p.Networks) > 0 {
					networks = strings.Trim(fmt.Sprint(p.Networks), "[]")
				}
				_, err = fmt.Fprintf(c.OutOrStdout(), "id         %d\nlabel      %s\nopens      %s\nonly       %s\nstate      %s\ncreated    %s\nmade by    %s\nexpires    %s\nnetworks   %s\nrevoked    %s\nlast used  %s\nrefused    %s\n",
					p.ID, printable(p.Label), p.Scopes, orDash(onlyWords(p, authstore.MaxCollections)), view.State(p), day(p.Created), orDash(printable(p.MadeBy)), day(p.Expires), networks,
					strings.TrimSpace(day(p.Revoked)+" "+printable(p.Why)), printable(lastUsed(p.Last)), refusals(p.Failures))
				return err
			})
		},
	})
}

func parseID(s string) (authstore.PasswordID, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 1 {
		return 0, &usageError{fmt.Errorf("%q is not the number of an app password; \"postern password list ADDRESS\" shows them", printable(s))}
	}
	return authstore.PasswordID(n), nil
}

func passwordError(id authstore.PasswordID, err error) error {
	if errors.Is(err, authstore.ErrNotFound) {
		return fmt.Errorf("there is no app password %d; \"postern password list ADDRESS\" shows them", id)
	}
	return err
}

func passwordRevoke(e *env) *cobra.Command {
	var why string
	c := e.jsonFlag(&cobra.Command{
		Use:   "revoke ID...",
		Short: "Revoke app passwords and end their sessions",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var ids []authstore.PasswordID
			for _, arg := range args {
				id, err := parseID(arg)
				if err != nil {
					return err
				}
				ids = append(ids, id)
			}
			return e.withDesk(c.Context(), func(d *gateway.Desk) error {
				for _, id := range ids {
					done, err := d.Revoke(c.Context(), id, why)
					if err != nil {
						return passwordError(id, err)
					}
					if err := e.printConfirmation(c.OutOrStdout(), fmt.Sprintf("revoked app password %d", id), done); err != nil {
						return err
					}
				}
				return nil
			})
		},
	})
	c.Flags().StringVar(&why, "why", "", "a reason for the history, such as \"phone lost\"")
	return c
}

func passwordRevokeAll(e *env) *cobra.Command {
	var why string
	c := e.jsonFlag(&cobra.Command{
		Use:   "revoke-all ADDRESS",
		Short: "Revoke all app passwords of an account and end its sessions",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.withAccount(c, args[0], func(d *gateway.Desk, a authstore.Account) error {
				done, err := d.RevokeAll(c.Context(), a.ID, why)
				if err != nil {
					return err
				}
				return e.printConfirmation(c.OutOrStdout(), "revoked all app passwords of "+a.Names[0], done)
			})
		},
	})
	c.Flags().StringVar(&why, "why", "", "a reason for the history")
	return c
}
