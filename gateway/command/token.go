package command

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/authstore"
	"postern/authstore/apitoken"
	"postern/gateway"
	"postern/gateway/view"
)

func tokenCommand(e *env) *cobra.Command {
	return group("token", "Bearer tokens of the API: create, list, revoke", tokenCreate(e), tokenList(e), tokenRevoke(e))
}

func tokenCreate(e *env) *cobra.Command {
	var scopes []string
	var expires string
	c := e.jsonFlag(&cobra.Command{
		Use:   "create NAME",
		Short: "Make a token for a program and show it once",
		Long: "Makes a bearer token with which a program may use the API under /api/v1\n(docs/api.md). It is shown now and never again. The name stands in the\nhistory beside all that is done with it.\n\nScopes:\n" +
			scopeHelp(),
		Example: `  postern token create keycloak --scope primary:changed
  postern token create provisioning --scope accounts:read,accounts:write --expires 365d`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			list, err := apitoken.ParseScopes(scopes...)
			if err != nil {
				return &usageError{fmt.Errorf("--scope: %w", err)}
			}
			until, err := parseExpiry(expires, time.Now())
			if err != nil {
				return &usageError{err}
			}
			return e.withDesk(c.Context(), func(d *gateway.Desk) error {
				t, secret, err := d.CreateToken(c.Context(), actor(), args[0], list, until)
				if err != nil {
					return err
				}
				if e.json {
					made := view.NewToken(t)
					made.Secret = secret.Reveal()
					return printJSON(c.OutOrStdout(), made)
				}
				_, err = fmt.Fprintf(c.OutOrStdout(), "\n    %s\n\nToken %s, expires %s, may: %s.\nIt is shown only now. A program sends it as \"Authorization: Bearer ...\" to %s.\n",
					secret.Reveal(), t.Name, orNever(t.Expires), strings.Join(view.NewToken(t).Scopes, " "), orDash(d.APIPlace()))
				return err
			})
		},
	})
	c.Flags().StringSliceVar(&scopes, "scope", nil, "what it may do, such as accounts:read,passwords:write; may be repeated")
	c.Flags().StringVar(&expires, "expires", "never", "never, a number of days such as 90d, or a date such as 2027-01-31")
	c.MarkFlagRequired("scope")
	c.RegisterFlagCompletionFunc("scope", cobra.FixedCompletions(apitoken.Names(), cobra.ShellCompDirectiveNoFileComp))
	return c
}

func scopeHelp() string {
	var b strings.Builder
	for _, s := range apitoken.Scopes {
		fmt.Fprintf(&b, "  %-18s %s\n", s.Scope, s.For)
	}
	return b.String()
}

func orNever(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return day(t)
}

func tokenList(e *env) *cobra.Command {
	return e.jsonFlag(&cobra.Command{
		Use:   "list",
		Short: "List the tokens of the API; never their secrets",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return e.withDesk(c.Context(), func(d *gateway.Desk) error {
				list, err := d.Tokens(c.Context())
				if err != nil {
					return err
				}
				views, rows := make([]view.Token, 0, len(list)), [][]string(nil)
				for _, t := range list {
					v := view.NewToken(t)
					views = append(views, v)
					expires := orNever(t.Expires)
					if !t.Expires.IsZero() && !t.Expires.After(time.Now()) {
						expires += " (over)"
					}
					rows = append(rows, []string{t.Name, strings.Join(v.Scopes, " "), day(t.Created), expires, day(t.LastUsed)})
				}
				if e.json {
					return printJSON(c.OutOrStdout(), views)
				}
				return table(c.OutOrStdout(), []string{"NAME", "SCOPES", "CREATED", "EXPIRES", "LAST USED"}, rows)
			})
		},
	})
}

func tokenRevoke(e *env) *cobra.Command {
	return e.jsonFlag(&cobra.Command{
		Use:   "revoke NAME",
		Short: "End a token of the API, on every gateway at once",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.withDesk(c.Context(), func(d *gateway.Desk) error {
				err := d.RevokeToken(c.Context(), actor(), args[0])
				if errors.Is(err, authstore.ErrNotFound) {
					return fmt.Errorf("there is no token %q; \"postern token list\" shows them all", printable(args[0]))
				}
				if err != nil {
					return err
				}
				if e.json {
					return printJSON(c.OutOrStdout(), struct {
						Revoked string `json:"revoked"`
					}{args[0]})
				}
				_, err = fmt.Fprintf(c.OutOrStdout(), "revoked token %s\n", args[0])
				return err
			})
		},
	})
}
