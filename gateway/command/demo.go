package command

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pquerna/otp/totp"
	"github.com/spf13/cobra"

	"postern/authstore"
	"postern/authstore/identity"
	"postern/config"
	"postern/gateway"
	"postern/gateway/demo"
)

// demoAddress is the demo's only account.
const demoAddress = "alice@example.test"

func demoCommand() *cobra.Command {
	var dir string
	var verbose bool
	c := &cobra.Command{
		Use:   "demo",
		Short: "A first look: everything in one process, on loopback, with sample data",
		Long: `Starts mail, calendar and contacts servers with sample data in this process, and
the gateway in front of them, with its portal; makes an account and its app passwords;
prints how to sign in, commands to try, and what apps send. Everything is on loopback
and ends with Ctrl-C.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if dir == "" {
				temporary, err := os.MkdirTemp("", "postern-demo-")
				if err != nil {
					return err
				}
				defer os.RemoveAll(temporary)
				dir = temporary
			}
			level := slog.LevelWarn
			if verbose {
				level = slog.LevelInfo
			}
			log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
			return runDemo(c.Context(), dir, log, c.OutOrStdout())
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "keep the database, keys and certificates in this folder (default: a temporary one)")
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "show the gateway's log: a line for each login and ended session")
	return c
}

func runDemo(ctx context.Context, dir string, log *slog.Logger, out io.Writer) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	backends, err := demo.Start(log, func(m demo.Mail) { io.WriteString(out, m.Text()) })
	if err != nil {
		return err
	}
	defer backends.Close()
	ports, err := demoPorts()
	if err != nil {
		return err
	}
	cfg, err := demoConfig(ctx, dir, backends, ports)
	if err != nil {
		return err
	}
	tour := demo.Tour{Dir: dir, Address: demoAddress, IMAPSPort: ports[0], IMAPPort: ports[1], DAVPort: ports[2], SubmissionsPort: ports[4], SubmissionPort: ports[5],
		PortalPort: ports[6]}
	if err := demoAccount(ctx, cfg, log, &tour); err != nil {
		return err
	}
	if err := tour.WriteFiles(); err != nil {
		return err
	}
	g, err := gateway.New(ctx, cfg, log)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(out, tour.Text()); err != nil {
		return errors.Join(err, g.Close())
	}
	return g.Run(ctx)
}

// demoPorts prefers ports that are the same at each start: IMAPS, IMAP with STARTTLS, DAV, operations, submission over TLS and with STARTTLS,
// the portal.
func demoPorts() ([]int, error) {
	var ports []int
	for _, preferred := range []int{10993, 10143, 10443, 10180, 10465, 10587, 10444} {
		ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(preferred)))
		if err != nil {
			if ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
				return nil, err
			}
		}
		defer ln.Close() // all are held until all are chosen
		ports = append(ports, ln.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// demoConfig writes the demo's configuration and what it names into its folder, as an administrator would, and reads it.
func demoConfig(ctx context.Context, dir string, b *demo.Backends, ports []int) (*config.Config, error) {
	ca, err := demo.NewCA(dir)
	if err != nil {
		return nil, err
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	text := fmt.Sprintf(`# The configuration of "postern demo". Its backends live in the demo's own process.
tls.certificate = [{ cert = %[1]q, key = %[2]q }]
store = { database = %[3]q, key_file = %[4]q, ballast = "0" }
operations.address = "127.0.0.1:%[5]d"
portal = { url = "https://localhost:%[17]d", name = "Postern demo" }
shutdown_grace = "2s"

[[listener]]
protocol = "imap"
address = "127.0.0.1:%[6]d"

[[listener]]
protocol = "imap"
address = "127.0.0.1:%[7]d"
tls = "starttls"

[[listener]]
protocol = "submission"
address = "127.0.0.1:%[14]d"

[[listener]]
protocol = "submission"
address = "127.0.0.1:%[15]d"
tls = "starttls"

[[listener]]
protocol = "dav"
address = "127.0.0.1:%[8]d"

[[listener]]
protocol = "portal"
address = "127.0.0.1:%[17]d"

[[backend]]
name = "demo-imap"
protocol = "imap"
address = %[9]q
tls = "none"
credential = "master"
user = %[10]q
password_file = %[11]q
client_id = false

[[backend]]
name = "demo-smtp"
protocol = "submission"
address = %[16]q
tls = "none"
credential = "master"
user = %[10]q
password_file = %[11]q

[[backend]]
name = "demo-dav"
protocol = "dav"
address = %[12]q
tls = "none"
credential = "basic"
password_file = %[13]q
`, path("cert.pem"), path("key.pem"), path("postern.db"), path("root.key"), ports[3], ports[0], ports[1], ports[2],
		b.IMAPAddress, b.MasterUser, path("imap.password"), b.DAVAddress, path("dav.password"), ports[4], ports[5], b.SMTPAddress, ports[6])
	certificate, key, err := pemFiles(ca.Certificate)
	if err != nil {
		return nil, err
	}
	for name, content := range map[string][]byte{
		"postern.toml": []byte(text), "cert.pem": certificate, "key.pem": key,
		"imap.password": b.MasterPassword, "dav.password": b.DAVPassword,
	} {
		if err := os.WriteFile(path(name), content, 0o600); err != nil {
			return nil, err
		}
	}
	cfg, err := config.Load(path("postern.toml"))
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(cfg.Store.KeyFile); err != nil {
		_, err = gateway.Init(ctx, cfg)
		return cfg, err
	}
	return cfg, nil
}

func pemFiles(c tls.Certificate) (chain, key []byte, err error) {
	for _, der := range c.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	return chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}

// demoAccount makes the account if need be, and new secrets in place of those of an earlier start.
func demoAccount(ctx context.Context, cfg *config.Config, log *slog.Logger, tour *demo.Tour) error {
	who := authstore.Actor{Name: "demo"}
	desk, err := gateway.OpenDesk(ctx, cfg, who, log)
	if err != nil {
		return err
	}
	defer desk.Close()
	account, err := desk.Get(ctx, demoAddress)
	if errors.Is(err, authstore.ErrNotFound) {
		account, err = desk.Add(ctx, demoAddress)
	}
	if err != nil {
		return err
	}
	tour.PublicID = account.PublicID
	if _, err := desk.RevokeAll(ctx, account.ID, "demo started again"); err != nil {
		return err
	}
	if tour.SignIn, err = demoSignIn(ctx, desk, who, account.ID); err != nil {
		return err
	}
	for _, p := range append(slices.Clone(authstore.Presets), demoSingle) {
		if p.Scopes.Any(authstore.ScopePOP) {
			continue // nothing here speaks POP3
		}
		request := authstore.PasswordRequest{Account: account.ID, Label: demoLabels[p.Name], Scopes: p.Scopes}
		if p.Name == demoSingle.Name {
			work := authstore.Collection{Kind: authstore.CalendarCollection, Name: "work"}
			request.Collections, request.Titles = []authstore.Collection{work}, authstore.Titles{work: "Work"}
		}
		_, secret, err := desk.CreatePassword(ctx, request)
		if err != nil {
			return err
		}
		tour.Passwords = append(tour.Passwords, demo.Password{Preset: p, Secret: secret.Reveal()})
		secret.Clear()
	}
	return nil
}

// demoSingle is no preset, but shown like one.
var demoSingle = authstore.Preset{Name: demo.Single, Title: "The calendar Work alone, read only", Scopes: authstore.ScopeCalendarRead}

// demoLabels are what the account's owner called the app passwords, by preset.
var demoLabels = map[string]string{
	"everything": "Thunderbird on the laptop", "mail": "Mail on the phone", "send": "Scanner in the hall", "mail-read": "Mail archive",
	"dav": "DAVx⁵ on the tablet", "calendar": "Calendar on the watch", "contacts": "Telephone on the desk", "calendar-read": "Display in the kitchen",
	demo.Single: "Display at the office",
}

// demoCodes is how many recovery codes are shown: enough for a look.
const demoCodes = 5

// demoSignIn goes the way of somebody who was invited: a primary password, an authenticator app, recovery codes.
func demoSignIn(ctx context.Context, desk *gateway.Desk, who authstore.Actor, id authstore.AccountID) (demo.SignIn, error) {
	people, err := desk.People()
	if err != nil {
		return demo.SignIn{}, err
	}
	link, _, err := people.Invite(ctx, who, id, identity.Begin)
	if err != nil {
		return demo.SignIn{}, err
	}
	v := identity.Visitor{Client: netip.AddrFrom4([4]byte{127, 0, 0, 1}), Agent: "postern demo"}
	in := demo.SignIn{Primary: strings.ToLower(rand.Text()[:16])}
	_, session, err := people.Accept(ctx, v, link, []byte(in.Primary))
	if err != nil {
		return in, err
	}
	enrolment, err := people.EnrolTOTP(ctx, session)
	if err != nil {
		return in, err
	}
	in.Key = enrolment.Key
	code, err := totp.GenerateCode(in.Key, time.Now())
	if err != nil {
		return in, err
	}
	if _, session, err = people.AddTOTP(ctx, v, session, enrolment.State, code, "Demo"); err != nil {
		return in, err
	}
	codes, err := people.RenewRecoveryCodes(ctx, v, session)
	if err != nil {
		return in, err
	}
	in.Codes = codes[:demoCodes]
	return in, people.SignOut(ctx, v, session)
}
