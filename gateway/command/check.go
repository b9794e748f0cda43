package command

import (
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/spf13/cobra"

	"postern/gateway"
)

func checkCommand(e *env) *cobra.Command {
	var dns bool
	var server string
	c := &cobra.Command{
		Use:   "check",
		Short: "Say what is wrong with the configuration and what it names",
		Long: `Reads the configuration, loads the certificates, opens the stores and logs in to each
backend for an account that is there; looks at what the portal and its notices need.
Exit code 1 if something is wrong.

With --dns it also prints the DNS records by which apps find everything from a mail
address alone, ready for a zone file, and looks whether they are there.`,
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
			report := func(f gateway.Finding) {
				fmt.Fprintln(out, f.Text())
				if f.Err != nil {
					faults++
				}
			}
			gateway.Check(c.Context(), cfg, report)
			if dns || server != "" {
				fmt.Fprintln(out)
				gateway.CheckDNS(c.Context(), cfg, resolver(server), out, report)
			}
			if faults > 0 {
				return errReported
			}
			return nil
		},
	}
	c.Flags().BoolVar(&dns, "dns", false, "print the DNS records that apps look for, and look for them too")
	c.Flags().StringVar(&server, "resolver", "", "the DNS server to ask for them, as HOST or HOST:PORT; such as the zone's own, right after a change (default the system's)")
	return c
}

// resolver asks one DNS server, or what the system asks.
func resolver(server string) *net.Resolver {
	if server == "" {
		return net.DefaultResolver
	}
	if _, _, err := net.SplitHostPort(server); err != nil {
		server = net.JoinHostPort(strings.Trim(server, "[]"), "53")
	}
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server)
	}}
}
