package command

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"postern/config"
	"postern/gateway/bench"
)

func benchCommand() *cobra.Command {
	c := group("bench", "Measure a mail or DAV server under bounded load",
		benchLogin(), benchNOOP(), benchFetch(), benchIdle(), benchStorm(), benchSend(), benchDAV(), benchBackend())
	c.Long = `Puts bounded load on a server (this gateway, or any other) and tells how fast it answers and,
where --pid names its processes, what each operation costs them. Load and target share the machine:
CPU per operation is the figure to trust, rates and times are worth comparing on one machine only.

Targets are servers on loopback, unless --any-target says that you may load another.`
	c.Example = `  postern bench login 127.0.0.1:993 --tls implicit --ca ca.pem --credentials file --pid $(pidof postern)
  postern bench noop 127.0.0.1:143 --credentials file --concurrency 32 --count 100000
  postern bench backend imap 127.0.0.1:1143`
	return c
}

// load is the flags of every run.
type load struct {
	target      bench.Target
	load        bench.Load
	tls         string
	ca          string
	serverName  string
	postQuantum bool
	credentials string
	pids        []int
	anyTarget   bool
	json        bool
}

// newLoad adds the flags to a command with its defaults.
func newLoad(c *cobra.Command, workers, count int) *load {
	l := &load{}
	f := c.Flags()
	f.StringVar(&l.credentials, "credentials", "", `file with lines "address secret", taken in turn (a command line is seen by all users)`)
	f.IntVar(&l.load.Workers, "concurrency", workers, "how many at a time")
	f.IntVar(&l.load.Count, "count", count, "how many in all")
	f.DurationVar(&l.load.Duration, "duration", 30*time.Second, "how long at most")
	f.StringVar(&l.tls, "tls", "none", `"none", "implicit" or "starttls"`)
	f.StringVar(&l.ca, "ca", "", "PEM file with the authority that signed the target's certificate (default: the system's)")
	f.StringVar(&l.serverName, "server-name", "", "name in the target's certificate (default: the target's host)")
	f.BoolVar(&l.postQuantum, "post-quantum", false, "offer X25519MLKEM768, as new browsers do and most mail apps don't")
	f.BoolVar(&l.target.QuickAck, "quick-ack", false, "acknowledge each segment at once (TCP_QUICKACK): no waiting where the target leaves Nagle's algorithm on")
	f.IntVar(&l.target.Sources, "sources", 0, "come from so many loopback addresses in turn, from 127.0.1.1 on: gateways bound what one address may do")
	f.IntSliceVar(&l.pids, "pid", nil, "a process of the target, counted with all its descendants; may be repeated")
	f.BoolVar(&l.anyTarget, "any-target", false, "the target need not be on loopback; ask its owner first")
	f.BoolVar(&l.json, "json", false, "print one line of JSON")
	c.MarkFlagRequired("credentials")
	return l
}

var curves = map[bool][]tls.CurveID{
	false: {tls.X25519, tls.CurveP256},
	true:  {tls.X25519MLKEM768, tls.X25519, tls.CurveP256},
}

// read turns the flags into a target and credentials.
func (l *load) read(address string) ([]bench.Credential, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, &usageError{fmt.Errorf("target: %w; write host:port", err)}
	}
	if !l.anyTarget && !isLoopback(host) {
		return nil, &usageError{fmt.Errorf("%s is not on loopback; --any-target, if its owner agrees", printable(address))}
	}
	if err := l.load.Check(); err != nil {
		return nil, &usageError{err}
	}
	if l.target.Sources < 0 || l.target.Sources > bench.MaxSources || l.target.Sources > 0 && !isLoopback(host) {
		return nil, &usageError{fmt.Errorf("--sources: at most %d, and for a target on loopback", bench.MaxSources)}
	}
	l.target.Address, l.target.Processes = address, l.pids
	if err := l.readTLS(host); err != nil {
		return nil, err
	}
	return readCredentials(l.credentials)
}

func readCredentials(file string) ([]bench.Credential, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	credentials, err := bench.ReadCredentials(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return credentials, nil
}

func (l *load) readTLS(host string) error {
	switch l.target.Security = bench.Security(l.tls); l.target.Security {
	case bench.Plain:
		return nil
	case bench.ImplicitTLS, bench.StartTLS:
	default:
		return &usageError{fmt.Errorf(`--tls is "none", "implicit" or "starttls", not %q`, l.tls)}
	}
	cfg := &tls.Config{ServerName: host, CurvePreferences: curves[l.postQuantum]}
	if l.serverName != "" {
		cfg.ServerName = l.serverName
	}
	if l.ca != "" {
		pem, err := os.ReadFile(l.ca)
		if err != nil {
			return err
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("%s holds no certificate in PEM", l.ca)
		}
	}
	l.target.TLS = cfg
	return nil
}

func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// print writes a result; where nothing succeeded, that is an error.
func (l *load) print(c *cobra.Command, r *bench.Result, err error) error {
	if err != nil {
		return err
	}
	if r.Operations == 0 && r.Failed > 0 {
		return fmt.Errorf("nothing succeeded: %s", r.FirstFailure)
	}
	if l.json {
		return json.NewEncoder(c.OutOrStdout()).Encode(r)
	}
	return r.Print(c.OutOrStdout())
}

// imapRun is a command whose run is against an IMAP server.
func imapRun(c *cobra.Command, workers, count int, run func(context.Context, bench.IMAP) (*bench.Result, error)) *cobra.Command {
	l := newLoad(c, workers, count)
	mechanism := c.Flags().String("mechanism", "login", `how to log in: "login" (the command), or "plain" (AUTHENTICATE PLAIN)`)
	c.Args = cobra.ExactArgs(1)
	c.RunE = func(c *cobra.Command, args []string) error {
		o := bench.IMAP{Target: &l.target}
		switch *mechanism {
		case "login":
			o.Mechanism = bench.ByLogin
		case "plain":
			o.Mechanism = bench.ByPlain
		default:
			return &usageError{fmt.Errorf(`--mechanism is "login" or "plain", not %q`, *mechanism)}
		}
		var err error
		if o.Credentials, err = l.read(args[0]); err != nil {
			return err
		}
		o.Load = l.load
		r, err := run(c.Context(), o)
		return l.print(c, r, err)
	}
	return c
}

func benchLogin() *cobra.Command {
	var resume bool
	c := &cobra.Command{
		Use:   "login TARGET",
		Short: "IMAP logins: connect, TLS, log in, close",
		Long:  "Logs in again and again: connects, shakes hands where there is TLS, logs in, closes.",
	}
	c = imapRun(c, 16, 10_000, func(ctx context.Context, o bench.IMAP) (*bench.Result, error) {
		o.Target.Resume = resume
		return bench.Login(ctx, o)
	})
	c.Flags().BoolVar(&resume, "resume", false, "resume TLS with the ticket of the connection before; tells how many could")
	return c
}

func benchNOOP() *cobra.Command {
	c := &cobra.Command{Use: "noop TARGET", Short: "IMAP round trips in open sessions"}
	return imapRun(c, 32, 100_000, bench.NOOP)
}

func benchFetch() *cobra.Command {
	var f bench.FetchOptions
	c := &cobra.Command{
		Use:   "fetch TARGET",
		Short: "IMAP: read a message again and again",
		Long:  `Reads a message again and again. Behind "postern bench backend imap" message 1 has 64 KiB, 2 has 1 MiB, 3 has 25 MiB.`,
	}
	c = imapRun(c, 4, 100, func(ctx context.Context, o bench.IMAP) (*bench.Result, error) { return bench.Fetch(ctx, o, f) })
	c.Flags().StringVar(&f.Mailbox, "mailbox", "INBOX", "the mailbox")
	c.Flags().IntVar(&f.Message, "message", 3, "the message's number in it")
	return c
}

func benchIdle() *cobra.Command {
	var i bench.IdleOptions
	c := &cobra.Command{
		Use:   "idle TARGET",
		Short: "IMAP: what sessions cost that wait in IDLE",
		Long: `Opens --count sessions, --concurrency at a time, leaves them in IDLE, and weighs the target's processes: memory (PSS,
without what the kernel holds for sockets) and descriptors, each less what they were before. A target that has been under load
keeps memory, which these sessions then get for nothing: start it anew before.`,
	}
	c = imapRun(c, 16, 1000, func(ctx context.Context, o bench.IMAP) (*bench.Result, error) { return bench.Idle(ctx, o, i) })
	c.Flags().DurationVar(&i.Settle, "settle", 5*time.Second, "how long to leave them alone before weighing")
	return c
}

func benchStorm() *cobra.Command {
	var s bench.StormOptions
	var rate int
	c := &cobra.Command{
		Use:   "storm TARGET",
		Short: "IMAP: wrong passwords beside good logins",
		Long: `Measures good logins alone, wrong passwords alone, and good logins beside wrong passwords: from one of the addresses that
the wrong ones come from, and from another. Each of these four parts takes --duration, or ends at --count good logins.`,
	}
	c = imapRun(c, 4, 1000, func(ctx context.Context, o bench.IMAP) (*bench.Result, error) {
		if host, _, _ := net.SplitHostPort(o.Target.Address); !isLoopback(host) {
			return nil, &usageError{errors.New("wrong passwords come from loopback addresses only; their target must be there too")}
		}
		if rate < 1 {
			return nil, &usageError{fmt.Errorf("--rate %d: must be at least 1", rate)}
		}
		o.Load.Pace = time.Duration(o.Load.Workers) * time.Second / time.Duration(rate)
		return bench.WrongPasswords(ctx, o, s)
	})
	c.Flags().IntVar(&s.Attackers, "attackers", 24, "how many wrong passwords at a time")
	c.Flags().IntVar(&s.Sources, "attack-sources", 1, "loopback addresses that they come from, from 127.0.1.1 on")
	c.Flags().BoolVar(&s.Misshapen, "misshapen", false, "wrong passwords that have not even the shape of an app password")
	c.Flags().IntVar(&rate, "rate", 100, "good logins in a second")
	return c
}

func benchSend() *cobra.Command {
	var o bench.Submission
	var size string
	c := &cobra.Command{
		Use:   "send TARGET",
		Short: "Submission: log in and send messages",
		Long: `Sends messages: connects, shakes hands where there is TLS, logs in by AUTH PLAIN, sends, says QUIT. --count is of messages.
Each address sends to itself: a server that really delivers fills its mailbox.`,
		Args: cobra.ExactArgs(1),
	}
	l := newLoad(c, 16, 10_000)
	f := c.Flags()
	f.IntVar(&o.Messages, "messages", 1, "how many over each connection")
	f.StringVar(&size, "size", "16KiB", "of a message, rounded up to whole lines")
	f.BoolVar(&l.target.Resume, "resume", false, "resume TLS with the ticket of the connection before; tells how many could")
	c.RunE = func(c *cobra.Command, args []string) error {
		var bytes config.Size
		err := bytes.UnmarshalText([]byte(size))
		if err != nil {
			return &usageError{fmt.Errorf("--size: %w", err)}
		}
		if o.Credentials, err = l.read(args[0]); err != nil {
			return err
		}
		o.Target, o.Load, o.Size = &l.target, l.load, int(bytes)
		r, err := bench.Send(c.Context(), o)
		return l.print(c, r, err)
	}
	return c
}

func benchDAV() *cobra.Command {
	var o bench.DAV
	var version string
	var idle bool
	var i bench.IdleOptions
	c := &cobra.Command{
		Use:   "dav TARGET",
		Short: "Calendars: PROPFIND, GET or PUT, over HTTP/1.1 or HTTP/2",
		Long: `Sends the same request again and again. {address} and {id} in --path stand for what the credentials' lines have: they may be
"address secret id", with the public id that "postern account show" tells. PUT writes over what is there. Behind
"postern bench backend dav" an event has as many bytes as its name says. --idle opens --count connections, leaves each open after
its first request, and weighs the target's processes as "postern bench idle" does.`,
		Example: `  postern bench dav 127.0.0.1:443 --tls implicit --credentials file --path /dav/cal/{id}/work/
  postern bench dav 127.0.0.1:443 --tls implicit --credentials file --method GET --path /dav/cal/{id}/work/1048576.ics --http 2`,
		Args: cobra.ExactArgs(1),
	}
	l := newLoad(c, 16, 20_000)
	f := c.Flags()
	f.StringVar(&o.Method, "method", "PROPFIND", "PROPFIND, GET or PUT")
	f.StringVar(&o.Path, "path", "", "the path, escaped")
	f.StringVar(&o.Depth, "depth", "0", "of PROPFIND")
	f.IntVar(&o.Size, "size", 1024, "of what is PUT, in bytes")
	f.StringVar(&version, "http", "1", `"1" or "2"`)
	f.BoolVar(&o.Reconnect, "reconnect", false, "each request over a connection of its own")
	f.BoolVar(&l.target.Resume, "resume", false, "resume TLS with the ticket of the connection before")
	f.BoolVar(&idle, "idle", false, "weigh clients that keep their connections, instead of measuring requests")
	f.DurationVar(&i.Settle, "settle", 5*time.Second, "with --idle: how long to leave them alone before weighing")
	c.MarkFlagRequired("path")
	c.RunE = func(c *cobra.Command, args []string) error {
		if !slices.Contains([]string{"PROPFIND", "GET", "PUT"}, o.Method) {
			return &usageError{fmt.Errorf("--method is PROPFIND, GET or PUT, not %q", o.Method)}
		}
		if version != "1" && version != "2" {
			return &usageError{fmt.Errorf(`--http is "1" or "2", not %q`, version)}
		}
		var err error
		if o.Credentials, err = l.read(args[0]); err != nil {
			return err
		}
		o.Target, o.Load, o.HTTP2 = &l.target, l.load, version == "2"
		measure := bench.Requests
		if idle {
			measure = func(ctx context.Context, o bench.DAV) (*bench.Result, error) { return bench.IdleClients(ctx, o, i) }
		}
		r, err := measure(c.Context(), o)
		return l.print(c, r, err)
	}
	return c
}
