package command

import (
	"context"
	"fmt"
	"net"

	"github.com/spf13/cobra"

	"postern/gateway/bench"
)

func benchBackend() *cobra.Command {
	c := group("backend", "Backends that answer from memory, so that they are not what is measured",
		backend("imap", "A mail server that takes every login; its messages have 64 KiB, 1 MiB and 25 MiB", bench.ServeIMAP),
		backend("submission", "A submission server that takes every login and every message", bench.ServeSubmission),
		backend("dav", "A calendar server that takes every login", bench.ServeDAV),
		authBackend())
	c.Long = `Serves on a loopback address until interrupted. Nothing is kept, and no login is checked: never put mail behind it.`
	return c
}

// backend is a command that serves on a loopback address.
func backend(use, short string, serve func(context.Context, net.Listener) error) *cobra.Command {
	var quickAck bool
	c := &cobra.Command{
		Use:   use + " ADDRESS",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			host, _, err := net.SplitHostPort(args[0])
			if err != nil {
				return &usageError{fmt.Errorf("%w; write 127.0.0.1:port", err)}
			}
			if !isLoopback(host) {
				return &usageError{fmt.Errorf("%s is not on loopback; these backends take every login", printable(args[0]))}
			}
			ln, err := net.Listen("tcp", args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "ready on %s\n", ln.Addr())
			if quickAck {
				ln = bench.AcknowledgeAtOnce(ln)
			}
			return serve(c.Context(), ln)
		},
	}
	c.Flags().BoolVar(&quickAck, "quick-ack", false, "acknowledge each segment at once (TCP_QUICKACK)")
	return c
}

// authBackend is what nginx asks about logins, so that it can be measured as it is used.
func authBackend() *cobra.Command {
	var s bench.AuthServer
	var credentials, mail, smtp string
	c := backend("auth", "What nginx asks about logins: auth_http at /mail, auth_request at /http", func(ctx context.Context, ln net.Listener) error {
		return s.Serve(ctx, ln)
	})
	c.Flags().StringVar(&credentials, "credentials", "", `file with lines "address secret"`)
	c.Flags().StringVar(&mail, "mail", "127.0.0.1:143", "the mail server that nginx is sent to")
	c.Flags().StringVar(&smtp, "smtp", "127.0.0.1:587", "the submission server that it is sent to for SMTP")
	c.Flags().IntVar(&s.Wait, "wait", 1, "seconds that a wrong password waits for its answer at nginx")
	c.MarkFlagRequired("credentials")
	c.PreRunE = func(*cobra.Command, []string) (err error) {
		if s.Backend, err = net.ResolveTCPAddr("tcp", mail); err != nil {
			return &usageError{fmt.Errorf("--mail: %w", err)}
		}
		if s.Submission, err = net.ResolveTCPAddr("tcp", smtp); err != nil {
			return &usageError{fmt.Errorf("--smtp: %w", err)}
		}
		s.Credentials, err = readCredentials(credentials)
		return err
	}
	return c
}
