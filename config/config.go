// Package config is the configuration file: its types, defaults, strict parsing and checks. It imports nothing of ours; the
// gateway alone reads it and fills each part's own options.
package config

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Config is one file. Parse returns it complete: every default filled in, every route written out.
type Config struct {
	DefaultDomain  string         `toml:"default_domain"`
	Hostname       string         `toml:"hostname"`
	PlusAddressing bool           `toml:"plus_addressing"`
	TrustedProxies []netip.Prefix `toml:"trusted_proxies"`
	LoginTimeout   Duration       `toml:"login_timeout"`
	ShutdownGrace  Duration       `toml:"shutdown_grace"`
	Listeners      []Listener     `toml:"listener"`
	Backends       []Backend      `toml:"backend"`
	OAuth          []OAuth        `toml:"oauth"`
	Routes         []Route        `toml:"route"`
	TLS            TLS            `toml:"tls"`
	Store          Store          `toml:"store"`
	Redis          Redis          `toml:"redis"`
	Operations     Operations     `toml:"operations"`
	API            API            `toml:"api"`
	Log            Log            `toml:"log"`
	IMAP           IMAP           `toml:"imap"`
	Submission     Submission     `toml:"submission"`
	DAV            DAV            `toml:"dav"`
	Portal         Portal         `toml:"portal"`
	Policies       []Policy       `toml:"policy"`
	Provisioning   Provisioning   `toml:"provisioning"`
	Administration Administration `toml:"administration"`
	Notices        Notices        `toml:"notices"`
	Limits         Limits         `toml:"limits"`
}

// Protocols are what listeners and backends speak.
var Protocols = []string{"imap", "submission", "pop3", "managesieve", "dav"}

// PortalProtocol is what a listener speaks to browsers.
const PortalProtocol = "portal"

// Listener is one address that apps or browsers reach.
type Listener struct {
	Protocol      string         `toml:"protocol"` // one of Protocols, or PortalProtocol
	Address       string         `toml:"address"`  // host:port
	TLS           string         `toml:"tls"`      // "implicit", "starttls", "none", "insecure"
	ProxyProtocol []netip.Prefix `toml:"proxy_protocol"`
}

// Backend is one server that holds data.
type Backend struct {
	Name         string `toml:"name"`
	Protocol     string `toml:"protocol"` // one of Protocols
	Address      string `toml:"address"`  // host:port
	TLS          string `toml:"tls"`      // "implicit", "starttls", "none"
	CAFile       string `toml:"ca_file"`
	ServerName   string `toml:"server_name"`
	ClientCert   string `toml:"client_cert"`
	ClientKey    string `toml:"client_key"`
	Credential   string `toml:"credential"` // "master", "stored", "oauth", "xclient", "basic", "header", "bearer", "jwt"
	User         string `toml:"user"`
	PasswordFile string `toml:"password_file"`
	KeyFile      string `toml:"key_file"`
	OAuth        string `toml:"oauth"` // the name of an OAuth
	Header       string `toml:"header"`
	Login        string `toml:"login"`
	Principal    string `toml:"principal"`
	Pipelining   bool   `toml:"pipelining"`
	ClientID     bool   `toml:"client_id"`

	SpareConnections int `toml:"spare_connections"`
}

// Route leads one protocol of a domain's accounts to a backend.
type Route struct {
	Domain   string `toml:"domain"`   // "*": all that have no other route
	Protocol string `toml:"protocol"` // one of Protocols, but "calendar" and "contacts" for "dav"
	Backend  string `toml:"backend"`
}

// TLS is what the listeners show.
type TLS struct {
	Certificates []Certificate `toml:"certificate"`
	MinVersion   string        `toml:"min_version"`
	PostQuantum  bool          `toml:"post_quantum"`
}

// Certificate is a chain and its key, in PEM files.
type Certificate struct {
	Cert string `toml:"cert"`
	Key  string `toml:"key"`
}

// Store is the database and its keys.
type Store struct {
	Database     string   `toml:"database"`
	KeyFile      string   `toml:"key_file"`
	SessionGrace Duration `toml:"session_grace"`
	StaleGrace   Duration `toml:"stale_grace"`
	Ballast      Size     `toml:"ballast"`
}

// Redis is the cache that several gateways share. Without addresses there is none.
type Redis struct {
	Addresses    []string `toml:"addresses"`
	MasterName   string   `toml:"master_name"`
	Username     string   `toml:"username"`
	PasswordFile string   `toml:"password_file"`
	TLS          bool     `toml:"tls"`
	CAFile       string   `toml:"ca_file"`
	Database     int      `toml:"database"`
}

// Operations is the listener for health, metrics and profiles.
type Operations struct {
	Address string `toml:"address"` // host:port on loopback, or unix:PATH
}

// API is where programs reach the API.
type API struct {
	Listeners []string `toml:"listeners"` // "operations", "portal"; none: nowhere
}

// On reports whether the API is served on a kind of listener.
func (a *API) On(listener string) bool { return slices.Contains(a.Listeners, listener) }

// Log is what is logged and how.
type Log struct {
	Format string `toml:"format"` // "auto", "text", "json"
	Level  string `toml:"level"`  // "debug", "info", "warn", "error"
}

// IMAP holds what is decided of IMAP sessions.
type IMAP struct {
	IdleTimeout Duration `toml:"idle_timeout"`
	Compress    bool     `toml:"compress"`
}

// Submission holds what is decided of mail that apps send.
type Submission struct {
	Sender    string `toml:"sender"`    // "any", "own"
	Smuggling string `toml:"smuggling"` // "refuse", "pass"
}

// DAV holds the bounds of CalDAV and CardDAV requests.
type DAV struct {
	MaxBody Size `toml:"max_body"`
}

// Portal holds what is decided of the pages where people manage their app passwords. Without a listener for it there are none.
type Portal struct {
	URL               string   `toml:"url"`
	Name              string   `toml:"name"`
	SignIn            string   `toml:"sign_in"`   // "local", "imap", "ldap", "oidc"
	Enrolment         string   `toml:"enrolment"` // "first", "invite"
	OnePrimary        bool     `toml:"one_primary"`
	IdleTimeout       Duration `toml:"idle_timeout"`
	SessionTime       Duration `toml:"session_time"`
	LongestDays       int      `toml:"longest_days"` // 0: no bound
	BreachedPasswords string   `toml:"breached_passwords"`
	CountryDatabase   string   `toml:"country_database"`
	OperatorDatabase  string   `toml:"operator_database"`
	IMAP              SignIn   `toml:"imap"`
	LDAP              LDAP     `toml:"ldap"`
	OIDC              OIDC     `toml:"oidc"`
}

// SignIn is the IMAP server that checks primary passwords.
type SignIn struct {
	Address    string `toml:"address"` // host:port
	TLS        string `toml:"tls"`     // "implicit", "starttls", "none"
	CAFile     string `toml:"ca_file"`
	ServerName string `toml:"server_name"`
	Login      string `toml:"login"`
}

// LDAP is the directory that checks primary passwords and says who is there.
type LDAP struct {
	Address          string   `toml:"address"` // host:port
	TLS              string   `toml:"tls"`     // "implicit", "starttls", "none"
	CAFile           string   `toml:"ca_file"`
	ServerName       string   `toml:"server_name"`
	BindDN           string   `toml:"bind_dn"` // empty: anonymous
	PasswordFile     string   `toml:"password_file"`
	Base             string   `toml:"base"`
	Filter           string   `toml:"filter"`
	DisabledFilter   string   `toml:"disabled_filter"` // empty: nobody is
	AddressAttribute string   `toml:"address_attribute"`
	SubjectAttribute string   `toml:"subject_attribute"`
	GroupsAttribute  string   `toml:"groups_attribute"`
	GroupBase        string   `toml:"group_base"`
	GroupFilter      string   `toml:"group_filter"`
	ChangedAttribute string   `toml:"changed_attribute"`
	LookEvery        Duration `toml:"look_every"` // 0: never
}

// OIDC is the OpenID Connect provider that people sign in at.
type OIDC struct {
	Issuer           string   `toml:"issuer"`
	ClientID         string   `toml:"client_id"`
	ClientSecretFile string   `toml:"client_secret_file"` // empty: a public client
	Name             string   `toml:"name"`
	Scopes           []string `toml:"scopes"`
	AddressClaim     string   `toml:"address_claim"`
	TrustAddresses   bool     `toml:"trust_addresses"`
	GroupsClaim      string   `toml:"groups_claim"`
	FactorACR        []string `toml:"factor_acr"`
	FactorAMR        []string `toml:"factor_amr"`
	CAFile           string   `toml:"ca_file"`
}

// Provisioning says for whom an account is made at the first sign-in.
type Provisioning struct {
	Domains []string `toml:"domains"`
	Groups  []string `toml:"groups"`
}

// Administration says who administers, besides those whom the command line has made administrators.
type Administration struct {
	Groups []string `toml:"groups"`
}

// Notices is the server that takes the mails about what happened to an account. Without an address there are none.
type Notices struct {
	Address      string `toml:"address"` // host:port
	TLS          string `toml:"tls"`     // "implicit", "starttls", "none"
	CAFile       string `toml:"ca_file"`
	ServerName   string `toml:"server_name"`
	User         string `toml:"user"`
	PasswordFile string `toml:"password_file"`
	From         string `toml:"from"`
}

// Policy bounds the app passwords of some accounts. The first that fits an account counts.
type Policy struct {
	Domains      []string       `toml:"domains"`
	Groups       []string       `toml:"groups"`
	LongestDays  int            `toml:"longest_days"` // 0: any
	MustExpire   bool           `toml:"must_expire"`
	Presets      []string       `toml:"presets"` // empty: all
	Networks     []netip.Prefix `toml:"networks"`
	MostActive   int            `toml:"most_active"`
	IdleDays     int            `toml:"idle_days"` // 0: they stay
	YearlyNotice bool           `toml:"yearly_notice"`
}

// Limits bound what clients may take.
type Limits struct {
	Preauth           int `toml:"preauth"`
	PreauthPerNetwork int `toml:"preauth_per_network"`
	Sessions          int `toml:"sessions"`
}

// Duration is a time.Duration written as "60s" or "10m".
type Duration time.Duration

// Duration returns it as the standard type.
func (d Duration) Duration() time.Duration { return time.Duration(d) }

// UnmarshalText reads "60s", "10m", "2h".
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v < 0 {
		return fmt.Errorf("%q is not a time such as \"60s\", \"10m\" or \"2h\"", text)
	}
	*d = Duration(v)
	return nil
}

// Size is a number of bytes written as "20MiB".
type Size int64

// UnmarshalText reads "512", "64KiB", "20MiB" or "1GiB".
func (s *Size) UnmarshalText(text []byte) error {
	number, unit := string(text), int64(1)
	for suffix, factor := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if n, ok := strings.CutSuffix(number, suffix); ok {
			number, unit = strings.TrimSpace(n), factor
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 32)
	if err != nil || n < 0 {
		return fmt.Errorf("%q is not a size such as \"64KiB\" or \"20MiB\"", text)
	}
	*s = Size(n * unit)
	return nil
}

// defaults is what a file that says nothing gets.
func defaults() *Config {
	return &Config{
		LoginTimeout:  Duration(time.Minute),
		ShutdownGrace: Duration(30 * time.Second),
		TLS:           TLS{MinVersion: "1.2", PostQuantum: true},
		Store: Store{Database: "/var/lib/postern/postern.db", KeyFile: "/var/lib/postern/root.key",
			SessionGrace: Duration(10 * time.Minute), Ballast: 16 << 20},
		Operations: Operations{Address: "127.0.0.1:9180"},
		API:        API{Listeners: []string{"operations"}},
		Log:        Log{Format: "auto", Level: "info"},
		IMAP:       IMAP{IdleTimeout: Duration(35 * time.Minute), Compress: true},
		Submission: Submission{Sender: "any", Smuggling: "refuse"},
		DAV:        DAV{MaxBody: 20 << 20},
		Portal: Portal{SignIn: "local", Enrolment: "first", OnePrimary: true, IdleTimeout: Duration(30 * time.Minute), SessionTime: Duration(12 * time.Hour),
			IMAP: SignIn{TLS: "implicit", Login: "{address}"},
			LDAP: LDAP{TLS: "implicit", Filter: "(&(objectClass=person)(mail={address}))", AddressAttribute: "mail", SubjectAttribute: "entryUUID",
				GroupsAttribute: "memberOf", GroupFilter: "(member={dn})", ChangedAttribute: "pwdChangedTime", LookEvery: Duration(5 * time.Minute)},
			OIDC: OIDC{Scopes: []string{"openid", "profile", "email"}, AddressClaim: "email", GroupsClaim: "groups"}},
		Notices: Notices{TLS: "implicit"},
		Limits:  Limits{Preauth: 4096, PreauthPerNetwork: 32, Sessions: 50000},
	}
}

// defaultListener, defaultBackend, defaultRoute and defaultPolicy fill what the entries of a list leave out.
func defaultListener() Listener { return Listener{TLS: "implicit"} }

func defaultBackend() Backend {
	return Backend{TLS: "implicit", Header: "X-Remote-User", Login: "{address}", Principal: "/{login}/", Pipelining: true, ClientID: true}
}

func defaultRoute() Route { return Route{Domain: "*"} }

func defaultPolicy() Policy { return Policy{MostActive: 25} }

// Load reads and checks a file. Its error is a *Problems where the text is at fault.
func Load(path string) (*Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w; \"postern config example\" prints one to start from", err)
	}
	return Parse(path, text)
}

// KeyFile is the path of the root keys: systemd's credential "root.key" if the service was given one, else store.key_file.
func (c *Config) KeyFile() string {
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		path := filepath.Join(dir, "root.key")
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return c.Store.KeyFile
}

// HasPortal reports whether there is a listener for browsers.
func (c *Config) HasPortal() bool {
	return slices.ContainsFunc(c.Listeners, func(l Listener) bool { return l.Protocol == PortalProtocol })
}

// KeyExchanges are those that listeners offer, as crypto/tls has them; nil: all it knows, hybrids first.
func (c *Config) KeyExchanges() []tls.CurveID {
	if c.TLS.PostQuantum {
		return nil
	}
	return []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}
}

// MinTLS is the least TLS version as crypto/tls numbers it.
func (c *Config) MinTLS() uint16 {
	if c.TLS.MinVersion == "1.3" {
		return tls.VersionTLS13
	}
	return tls.VersionTLS12
}
