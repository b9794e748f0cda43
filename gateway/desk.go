package gateway

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"postern/authstore"
	"postern/authstore/rediscache"
	"postern/authstore/secret"
	"postern/authstore/sqlstore"
	"postern/config"
	"postern/gateway/ops"
	"postern/protocols/davproxy"
	"postern/protocols/imapproxy"
	"postern/protocols/popproxy"
	"postern/protocols/sieveproxy"
	"postern/protocols/submission"
)

// Enforced are the scopes that a front door of this program enforces. An app password for another one can't be made.
const Enforced = imapproxy.Scopes | submission.Scopes | popproxy.Scopes | sieveproxy.Scopes | davproxy.Scopes

// Desk is where things are changed: the stores that a configuration names, opened for the command line or a gateway.
type Desk struct {
	*authstore.Accounts
	cfg   *config.Config
	log   *slog.Logger
	truth *sqlstore.Store
	cache *rediscache.Cache // nil: no Redis
}

// OpenDesk opens the stores for the command line. actor stands in the history of what it changes.
func OpenDesk(ctx context.Context, cfg *config.Config, actor authstore.Actor, log *slog.Logger) (*Desk, error) {
	return openDesk(ctx, cfg, deskOptions{actor: actor, log: log})
}

type deskOptions struct {
	actor   authstore.Actor
	log     *slog.Logger
	changed func() // see authstore.AccountsOptions
	ballast bool
}

func openDesk(ctx context.Context, cfg *config.Config, o deskOptions) (*Desk, error) {
	keys, err := readKeys(cfg.KeyFile())
	if err != nil {
		return nil, err
	}
	d := &Desk{cfg: cfg, log: o.log}
	so := sqlstore.Options{Path: cfg.Store.Database, MustExist: true, Notices: cfg.Notices.Address != "", Log: o.log}
	if o.ballast {
		so.Ballast = int64(cfg.Store.Ballast)
	}
	if d.truth, err = sqlstore.Open(ctx, so); err != nil {
		return nil, err
	}
	if len(cfg.Redis.Addresses) > 0 {
		if d.cache, err = openCache(&cfg.Redis); err != nil {
			d.Close()
			return nil, err
		}
	}
	d.Accounts, err = authstore.NewAccounts(ctx, authstore.AccountsOptions{
		Truth: d.truth, Cache: d.sharedCache(), Keys: keys, Names: namesOf(cfg), Enforced: Enforced, Policies: policiesOf(cfg),
		StaleGrace: cfg.Store.StaleGrace.Duration(), Actor: o.actor, Changed: o.changed,
	})
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// Operations reaches the running gateway of a configuration.
func Operations(cfg *config.Config) (*ops.Client, error) {
	keys, err := readKeys(cfg.KeyFile())
	return &ops.Client{Address: cfg.Operations.Address, Keys: keys}, err
}

// openCache makes the shared cache; it connects when it is first used, so that a Redis that is down stops nothing.
func openCache(c *config.Redis) (*rediscache.Cache, error) {
	o := rediscache.Options{Addresses: c.Addresses, MasterName: c.MasterName, Username: c.Username, Database: c.Database}
	if c.PasswordFile != "" {
		password, err := readPassword(c.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("[redis]: %w", err)
		}
		o.Password = string(password)
	}
	if c.TLS {
		var err error
		if o.TLS, err = clientTLS(c.CAFile, "", c.Addresses[0]); err != nil {
			return nil, fmt.Errorf("[redis]: %w", err)
		}
	}
	return rediscache.New(o), nil
}

// sharedCache avoids an interface that holds a nil pointer.
func (d *Desk) sharedCache() authstore.Cache {
	if d.cache == nil {
		return nil
	}
	return d.cache
}

func namesOf(cfg *config.Config) authstore.Names {
	return authstore.Names{DefaultDomain: cfg.DefaultDomain, PlusAddresses: cfg.PlusAddressing}
}

// Close closes the stores.
func (d *Desk) Close() error {
	var err error
	if d.cache != nil {
		err = d.cache.Close()
	}
	return errors.Join(err, d.truth.Close())
}

// StoreBackendPassword seals an account's own password at a backend that wants one.
func (d *Desk) StoreBackendPassword(ctx context.Context, id authstore.AccountID, backend string, password []byte) error {
	if err := takesStored(d.cfg, backend); err != nil {
		return err
	}
	return d.Accounts.StoreBackendPassword(ctx, id, backend, password)
}

// takesStored says why a backend wants no stored passwords.
func takesStored(cfg *config.Config, backend string) error {
	var names []string
	for _, b := range cfg.Backends {
		if b.Name == backend && b.Credential != "stored" {
			return fmt.Errorf("backend %q has credential = %q and takes no stored passwords", backend, b.Credential)
		}
		if b.Name == backend {
			return nil
		}
		names = append(names, b.Name)
	}
	return fmt.Errorf("there is no backend %q; the configuration has %s", backend, strings.Join(names, ", "))
}

// Backup writes a consistent copy of the database to a file that must not be there yet. The gateway may run meanwhile.
func (d *Desk) Backup(ctx context.Context, path string) error { return d.truth.Backup(ctx, path) }

// readKeys reads the root keys.
func readKeys(path string) (*secret.Keyring, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no key file %s; make one with \"postern init\", or restore the one that belongs to the database", path)
	}
	if err != nil {
		return nil, fmt.Errorf("key file: %w%s", err, readerRemedy(err))
	}
	defer clear(text)
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o027 != 0 { // systemd's ACL shows as the group's right to read
		return nil, fmt.Errorf("key file %s is open to others (mode %v); run: chmod 0400 %s", path, info.Mode().Perm(), path)
	}
	keys, err := secret.ParseKeyring(text)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return keys, nil
}

// readerRemedy says who can read what only Postern may.
func readerRemedy(err error) string {
	if errors.Is(err, fs.ErrPermission) {
		return "; run this as the user that runs Postern, or give the file and its folder to that user"
	}
	return ""
}

// writeKeys replaces the key file in one step, so that a crash leaves the old one or the new one. Written by root, it belongs to the owner
// of the old one or of the folder, for the gateway runs as another user.
func writeKeys(path string, keys *secret.Keyring) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".root.key-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	text := keys.Text()
	defer clear(text)
	_, err = f.Write(text)
	if err := errors.Join(err, f.Chmod(0o400), giveAway(f, path), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func giveAway(f *os.File, path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		info, err = os.Stat(filepath.Dir(path))
	}
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t)
	return f.Chown(int(owner.Uid), int(owner.Gid))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Init makes the key file and the database of a configuration, with their folders, and tells what it made. What is there is never
// touched.
func Init(ctx context.Context, cfg *config.Config) (made []string, err error) {
	key, database := cfg.KeyFile(), cfg.Store.Database
	hasKey, hasDatabase := exists(key), exists(database)
	switch {
	case hasKey && hasDatabase:
		return nil, fmt.Errorf("%s and %s are there already; nothing was changed", key, database)
	case hasDatabase:
		return nil, fmt.Errorf("the database %s is there without its key file; restore %s from its backup (a new key would open nothing)", database, key)
	}
	for _, dir := range []string{filepath.Dir(key), filepath.Dir(database)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	if !hasKey {
		if err := writeKeys(key, secret.NewKeyring()); err != nil {
			return nil, err
		}
		made = append(made, key)
	}
	s, err := sqlstore.Open(ctx, sqlstore.Options{Path: database})
	if err != nil {
		return made, err
	}
	return append(made, database), s.Close()
}

// exists also takes a link to nothing for something.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// AddKey adds a root key. New app passwords use it when every gateway has read the file again.
func (d *Desk) AddKey() (uint32, error) {
	keys, err := d.Keyring().Add()
	if err != nil {
		return 0, err
	}
	if err := writeKeys(d.cfg.KeyFile(), keys); err != nil {
		return 0, fmt.Errorf("write the key file: %w; nothing was changed", err)
	}
	return keys.Newest(), nil
}

// RetireKey removes a root key that nothing needs any more. What is sealed at rest under it is sealed again under the newest before.
func (d *Desk) RetireKey(ctx context.Context, n uint32) error {
	if _, err := d.Reseal(ctx, n); err != nil {
		return fmt.Errorf("seal again what needs key %d: %w", n, err)
	}
	if err := d.CanRetire(ctx, n); err != nil {
		return err
	}
	keys, err := d.Keyring().Without(n)
	if err != nil {
		return err
	}
	return writeKeys(d.cfg.KeyFile(), keys)
}
