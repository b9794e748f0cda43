package command

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func healthcheckCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask the running gateway whether it takes logins",
		Long:  "Asks /readyz on the operations listener of the configuration. Exit code 0: it takes logins.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := loadConfig(e.config)
			if err != nil {
				return err
			}
			return healthcheck(c.Context(), cfg.Operations.Address, c.OutOrStdout())
		},
	}
}

// healthcheck asks an operations listener, "host:port" or "unix:PATH".
func healthcheck(ctx context.Context, address string, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		if path, ok := strings.CutPrefix(address, "unix:"); ok {
			return d.DialContext(ctx, "unix", path)
		}
		return d.DialContext(ctx, "tcp", address)
	}}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("no gateway answers on %s: %w", address, err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the gateway takes no logins: %s", strings.TrimSpace(string(text)))
	}
	_, err = out.Write(text)
	return err
}
