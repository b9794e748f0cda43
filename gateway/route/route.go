// Package route leads a grant to the backend that holds its data: which server, under which name there, and the credential
// the gateway proves. A Table is immutable; a reload builds another one.
package route

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"

	"postern/authstore"
	"postern/protocols"
)

// Kind says how the gateway proves itself to a backend.
type Kind int

// The kinds of credential.
const (
	Master  Kind = iota + 1 // our own user acts for the account: SASL PLAIN with authzid
	Stored                  // the account's own password at the backend, sealed in the store
	Basic                   // one user name template with our own password
	Header                  // a trusted header names the account; the network keeps others out
	XClient                 // the same with SMTP's XCLIENT
	Bearer                  // the same as Header, with a token of ours as proof that the request is the gateway's
	JWT                     // a token that we sign names the account
	OAuth                   // an access token of the account's, from an authorization server (RFC 6749)
)

// Backend is one server of the configuration.
type Backend struct {
	Name      string
	Network   string // "tcp" or "unix"
	Address   string
	Security  protocols.Security
	TLS       *tls.Config // nil with protocols.PlainText
	Login     string      // template of the account's name: {address}, {local}, {domain}
	Principal string      // DAV: template of the principal's path; knows {login} besides
	Kind      Kind
	User      string  // Master
	Password  []byte  // Master and Basic; Bearer's token
	Signer    *Signer // JWT
	Header    string  // Header and Bearer
	Quirks    protocols.Quirks
	Spare     int // connections kept ready, see protocols.Pool
}

// Rule leads the accounts of a domain to a backend. Domain "*" is for those that no other rule names.
type Rule struct {
	Domain   string
	Protocol string // of the front door; of DAV's "calendar" and "contacts"
	Backend  string
}

// Vault opens the passwords that are stored for single accounts. In production it is an authstore.Accounts.
type Vault interface {
	// BackendPassword returns authstore.ErrNotFound where none is stored. The caller clears what it gets.
	BackendPassword(ctx context.Context, id authstore.AccountID, backend string) ([]byte, error)
}

// Token is an access token. Whoever gets one clears Value.
type Token struct {
	Value   []byte
	Refused func() // is called when the backend has refused it, so that the next one is another; nil: nobody wants to know
}

// Tokens gives the access tokens of accounts. Its errors are for the log, and say what to do.
type Tokens interface {
	// AccessToken returns one that will be good for some minutes yet.
	AccessToken(ctx context.Context, id authstore.AccountID, backend string) (Token, error)
}

// Table answers for all accounts. Goroutines may share it.
type Table struct {
	rules    map[ruleKey]*Backend
	backends []Backend
	pools    map[string]*protocols.Pool // by backend
	vault    Vault
	tokens   Tokens
}

type ruleKey struct{ domain, protocol string }

var _ protocols.Router = (*Table)(nil)

// New builds a table. A rule that names no backend is an error. vault is asked by backends of the kind Stored, tokens by those of the kind OAuth.
func New(backends []Backend, rules []Rule, vault Vault, tokens Tokens) (*Table, error) {
	t := &Table{backends: backends, rules: make(map[ruleKey]*Backend), pools: make(map[string]*protocols.Pool), vault: vault, tokens: tokens}
	for _, b := range backends {
		t.pools[b.Name] = protocols.NewPool(b.Spare)
	}
	for _, r := range rules {
		i := slices.IndexFunc(backends, func(b Backend) bool { return b.Name == r.Backend })
		if i < 0 {
			return nil, fmt.Errorf("route %s of %s: there is no backend %q", r.Protocol, r.Domain, r.Backend)
		}
		t.rules[ruleKey{r.Domain, r.Protocol}] = &backends[i]
	}
	return t, nil
}

// Backends names those that rules of a protocol lead to, in the order of the configuration.
func (t *Table) Backends(protocol string) []string {
	var names []string
	for i := range t.backends {
		for key, b := range t.rules {
			if key.protocol == protocol && b == &t.backends[i] {
				names = append(names, b.Name)
				break
			}
		}
	}
	return names
}

// Reach is the way to a backend without a login; nil: there is none of that name.
func (t *Table) Reach(name string) *protocols.Route {
	for i := range t.backends {
		if b := &t.backends[i]; b.Name == name {
			return b.reach()
		}
	}
	return nil
}

func (b *Backend) reach() *protocols.Route {
	return &protocols.Route{Backend: b.Name, Network: b.Network, Address: b.Address, Security: b.Security, TLS: b.TLS, Header: b.Header,
		Bearer: b.Kind == Bearer || b.Kind == JWT || b.Kind == OAuth, XClient: b.Kind == XClient, Quirks: b.Quirks}
}

// Close closes the connections that are kept ready. Logins that are led by the table go on without them.
func (t *Table) Close() {
	for _, p := range t.pools {
		p.Close()
	}
}

// Route returns where a grant's data of one protocol lives; protocols.ErrNoRoute where nothing is configured.
func (t *Table) Route(ctx context.Context, protocol string, g authstore.Grant) (*protocols.Route, error) {
	local, domain := split(g.Address)
	b := t.rules[ruleKey{domain, protocol}]
	if b == nil {
		b = t.rules[ruleKey{"*", protocol}]
	}
	if b == nil {
		return nil, protocols.ErrNoRoute
	}
	login := g.BackendName
	if login == "" {
		login = expand(b.Login, g.Address, local, domain, "")
	}
	r := b.reach()
	r.Login, r.Pool = login, t.pools[b.Name]
	if b.Principal != "" {
		for _, part := range []string{g.Address, login} {
			if strings.ContainsAny(part, "/\\") || part == "." || part == ".." {
				return nil, fmt.Errorf("the name of account %d can't stand in a path", g.Account)
			}
		}
		r.Path = expand(b.Principal, g.Address, local, domain, login)
	}
	r.Open = t.opener(b, g.Account, login)
	return r, nil
}

func (t *Table) opener(b *Backend, id authstore.AccountID, login string) protocols.OpenFunc {
	switch b.Kind {
	case Master:
		return func(context.Context) (protocols.Credential, error) {
			return protocols.Credential{Authzid: login, Authcid: b.User, Password: slices.Clone(b.Password)}, nil
		}
	case Basic, Bearer:
		return func(context.Context) (protocols.Credential, error) {
			return protocols.Credential{Authcid: login, Password: slices.Clone(b.Password)}, nil
		}
	case JWT:
		return func(context.Context) (protocols.Credential, error) {
			token, err := b.Signer.token(login)
			return protocols.Credential{Authcid: login, Password: token}, err
		}
	case Stored:
		return func(ctx context.Context) (protocols.Credential, error) {
			password, err := t.vault.BackendPassword(ctx, id, b.Name)
			if errors.Is(err, authstore.ErrNotFound) {
				return protocols.Credential{}, fmt.Errorf(
					"no password is stored for account %d at backend %q; store one with \"postern account credential ADDRESS --backend %s --password-file FILE\"", id, b.Name, b.Name)
			}
			return protocols.Credential{Authcid: login, Password: password}, err
		}
	case OAuth:
		return func(ctx context.Context) (protocols.Credential, error) {
			token, err := t.tokens.AccessToken(ctx, id, b.Name)
			if err != nil {
				return protocols.Credential{}, fmt.Errorf("no access token for account %d at backend %q: %w", id, b.Name, err)
			}
			if !isToken(token.Value) {
				clear(token.Value)
				return protocols.Credential{}, fmt.Errorf("the access token for account %d at backend %q holds what no token may (RFC 6750 section 2.1)", id, b.Name)
			}
			return protocols.Credential{Authcid: login, Password: token.Value, Refused: token.Refused}, nil
		}
	}
	return nil // Header and XClient: the network is the credential
}

// isToken takes visible characters only: a token goes into a header, and into a message in which others end a part.
func isToken(token []byte) bool {
	return len(token) > 0 && !bytes.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

func split(address string) (local, domain string) {
	at := strings.LastIndexByte(address, '@')
	return address[:max(at, 0)], address[at+1:]
}

// Login fills an account's address into a template of its name at a server: {address}, {local}, {domain}.
func Login(template, address string) string {
	local, domain := split(address)
	return expand(template, address, local, domain, "")
}

// expand fills in a template. Names that were put in are not looked at again.
func expand(template, address, local, domain, login string) string {
	if template == "{address}" {
		return address
	}
	var b strings.Builder // a strings.Replacer would build its tables for each request
	for {
		before, rest, found := strings.Cut(template, "{")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		name, after, _ := strings.Cut(rest, "}")
		switch name {
		case "address":
			b.WriteString(address)
		case "local":
			b.WriteString(local)
		case "domain":
			b.WriteString(domain)
		case "login":
			b.WriteString(login)
		default:
			b.WriteByte('{')
			after = rest
		}
		template = after
	}
}
