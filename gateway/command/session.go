package command

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"postern/authstore"
	"postern/gateway"
	"postern/gateway/live"
	"postern/gateway/ops"
)

func sessionCommand(e *env) *cobra.Command {
	return group("session", "Open connections of apps on this gateway: list, end", sessionList(e), sessionEnd(e))
}

// withRunning calls do with the way to the running gateway.
func (e *env) withRunning(do func(*ops.Client) error) error {
	cfg, err := loadConfig(e.config)
	if err != nil {
		return err
	}
	running, err := gateway.Operations(cfg)
	if err != nil {
		return err
	}
	return do(running)
}

// selection reads whose sessions are meant; empty: anybody's.
func (e *env) selection(c *cobra.Command, address, password string) (sel live.Selection, err error) {
	if password != "" {
		if sel.Password, err = parseID(password); err != nil {
			return sel, err
		}
		err = e.withDesk(c.Context(), func(d *gateway.Desk) error {
			_, err := d.Password(c.Context(), sel.Password)
			return passwordError(sel.Password, err)
		})
		if err != nil {
			return sel, err
		}
	}
	if address != "" {
		err = e.withAccount(c, address, func(_ *gateway.Desk, a authstore.Account) error {
			sel.Account = a.ID
			return nil
		})
	}
	return sel, err
}

func sessionList(e *env) *cobra.Command {
	var address, password string
	c := e.jsonFlag(&cobra.Command{
		Use:   "list",
		Short: "List open sessions",
		Long:  "Lists the open sessions of the gateway that this configuration belongs to. Of calendars and contacts these are the requests under way.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, args []string) error {
			sel, err := e.selection(c, address, password)
			if err != nil {
				return err
			}
			return e.withRunning(func(running *ops.Client) error {
				list, err := running.List(c.Context(), sel)
				if err != nil {
					return err
				}
				if e.json {
					return printJSON(c.OutOrStdout(), list)
				}
				var rows [][]string
				for _, s := range list {
					rows = append(rows, []string{s.ID, s.Address, strconv.FormatInt(int64(s.Password), 10), s.Protocol, s.Client.String(),
						orDash(s.Backend), orDash(s.App), time.Since(s.Since).Round(time.Second).String()})
				}
				return table(c.OutOrStdout(), []string{"ID", "ADDRESS", "APP PASSWORD", "PROTOCOL", "CLIENT", "BACKEND", "APP", "OPEN FOR"}, rows)
			})
		},
	})
	c.Flags().StringVar(&address, "account", "", "only those of this account, by its address")
	c.Flags().StringVar(&password, "password", "", "only those of this app password, by its number")
	return c
}

func sessionEnd(e *env) *cobra.Command {
	var address, password string
	c := e.jsonFlag(&cobra.Command{
		Use:   "end [ID...]",
		Short: "End sessions: by their ids, or all of an account or app password",
		Long: `Ends open sessions of the gateway that this configuration belongs to. Apps connect again at once: to keep an app out,
revoke its app password; to keep a person out, suspend the account.`,
		Example: `  postern session end k3v9q2w8x7c1m
  postern session end --account alice@example.org
  postern session end --password 7`,
		Args: func(_ *cobra.Command, ids []string) error {
			if (len(ids) > 0) == (address != "" || password != "") {
				return errors.New("name the sessions by their ids, or by --account or --password")
			}
			return nil
		},
		RunE: func(c *cobra.Command, ids []string) error {
			sel, err := e.selection(c, address, password)
			if err != nil {
				return err
			}
			return e.withRunning(func(running *ops.Client) error {
				if len(ids) == 0 {
					ended, err := running.End(c.Context(), sel)
					return e.printEnded(c, ended, err)
				}
				for _, id := range ids {
					ended, err := running.End(c.Context(), live.Selection{ID: id})
					if err == nil && ended.Count == 0 {
						err = fmt.Errorf("there is no session %s on this gateway; \"postern session list\" shows them", printable(id))
					}
					if err := e.printEnded(c, ended, err); err != nil {
						return err
					}
				}
				return nil
			})
		},
	})
	c.Flags().StringVar(&address, "account", "", "all sessions of this account, by its address")
	c.Flags().StringVar(&password, "password", "", "all sessions of this app password, by its number")
	return c
}

func (e *env) printEnded(c *cobra.Command, ended ops.Ended, err error) error {
	switch {
	case err != nil:
		return err
	case e.json:
		return printJSON(c.OutOrStdout(), ended)
	}
	sessions := "sessions"
	if ended.Count == 1 {
		sessions = "session"
	}
	text := fmt.Sprintf("ended %d %s", ended.Count, sessions)
	if !ended.Gone {
		text = fmt.Sprintf("told %d %s to end; not all are closed yet", ended.Count, sessions)
	}
	_, err = fmt.Fprintln(c.OutOrStdout(), text)
	return err
}
