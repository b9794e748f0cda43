package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"postern/authstore"
	"postern/config"
)

// dnsTimeout bounds what is asked of DNS for one domain.
const dnsTimeout = 10 * time.Second

// service is what a record of a domain leads apps to.
type service struct {
	name      string // "_imaps._tcp"
	port      uint16
	priority  uint16 // RFC 6186 section 3.4 weighs one protocol's against another's; RFC 8314 section 5.1 wants TLS from the start first
	dav       bool
	elsewhere bool // the port is that of a proxy in front, and not known here
}

// kinds of services, by what the configuration says of a listener.
var services = []struct {
	protocol, tls, word string
	service
}{
	{"dav", "implicit", "calendar", service{name: "_caldavs._tcp", dav: true}},
	{"dav", "implicit", "contacts", service{name: "_carddavs._tcp", dav: true}},
	{"imap", "implicit", "imap", service{name: "_imaps._tcp"}},
	{"imap", "starttls", "imap", service{name: "_imap._tcp", priority: 10}},
	{"pop3", "implicit", "pop3", service{name: "_pop3s._tcp", priority: 20}},
	{"pop3", "starttls", "pop3", service{name: "_pop3._tcp", priority: 30}},
	{"submission", "implicit", "submission", service{name: "_submissions._tcp"}},
	{"submission", "starttls", "submission", service{name: "_submission._tcp", priority: 10}},
	{"managesieve", "starttls", "managesieve", service{name: "_sieve._tcp"}},
}

// CheckDNS writes to zone the records that lead apps here from a mail address alone, for each domain that has accounts or routes, and reports which of them
// the resolver finds.
func CheckDNS(ctx context.Context, cfg *config.Config, resolver *net.Resolver, zone io.Writer, report func(Finding)) {
	desk, err := openDesk(ctx, cfg, deskOptions{actor: authstore.Actor{Name: "check"}, log: slog.New(slog.DiscardHandler)})
	var accounts []authstore.Account
	if err == nil {
		defer desk.Close()
		accounts, err = desk.List(ctx)
	}
	if err != nil { // Check tells; routes name domains too
		accounts = nil
	}
	checkRecords(ctx, cfg, accounts, resolver, zone, report)
}

func checkRecords(ctx context.Context, cfg *config.Config, accounts []authstore.Account, resolver *net.Resolver, zone io.Writer, report func(Finding)) {
	host := strings.TrimSuffix(serverName(cfg), ".")
	domains := mailDomains(cfg, accounts)
	switch {
	case !strings.Contains(host, "."), net.ParseIP(host) != nil:
		report(Finding{Subject: "dns", Err: fmt.Errorf("%q is no name that apps could reach; set hostname to the name that stands in the certificate and in DNS", host)})
		return
	case len(domains) == 0:
		report(Finding{Subject: "dns", Untried: "no account and no route names a domain; add an account first", Detail: "nothing to look for"})
		return
	}
	for _, domain := range domains {
		writeZone(zone, domain, host, offered(cfg, domain))
	}
	d := &dnsLook{resolver: resolver, host: host, report: report}
	if !d.hostName(ctx) {
		return
	}
	for _, domain := range domains {
		if !d.domain(ctx, domain, offered(cfg, domain)) {
			return
		}
	}
}

// mailDomains are the domains of accounts and routes.
func mailDomains(cfg *config.Config, accounts []authstore.Account) []string {
	var domains []string
	for _, a := range accounts {
		for _, name := range a.Names {
			domains = append(domains, name[strings.LastIndexByte(name, '@')+1:])
		}
	}
	for _, r := range cfg.Routes {
		domains = append(domains, r.Domain)
	}
	if cfg.DefaultDomain != "" {
		domains = append(domains, cfg.DefaultDomain)
	}
	slices.Sort(domains)
	return slices.DeleteFunc(slices.Compact(domains), func(d string) bool { return d == "*" || d == "" })
}

// offered are the services that a domain's accounts have here. Of listeners without TLS only DAV's counts: a proxy in front has the certificate.
func offered(cfg *config.Config, domain string) []service {
	var list []service
	for _, kind := range services {
		routed := slices.ContainsFunc(cfg.Routes, func(r config.Route) bool { return r.Protocol == kind.word && (r.Domain == "*" || r.Domain == domain) })
		if !routed {
			continue
		}
		s := kind.service
		for _, l := range cfg.Listeners {
			if l.Protocol == kind.protocol && l.TLS == kind.tls {
				s.port = portOf(l.Address)
				break
			}
			if l.Protocol == kind.protocol && kind.dav && l.TLS == "none" {
				s.port, s.elsewhere = 443, true
			}
		}
		if s.port != 0 {
			list = append(list, s)
		}
	}
	return list
}

func portOf(address string) uint16 {
	_, text, _ := net.SplitHostPort(address)
	n, _ := strconv.ParseUint(text, 10, 16)
	return uint16(n)
}

// davPath is where apps begin.
const davPath = "/dav/"

// writeZone writes a domain's records as they stand in a zone file.
func writeZone(w io.Writer, domain, host string, list []service) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(w, "; for the zone of %s: apps find everything by the mail address alone (RFC 6764, RFC 6186, RFC 8314)\n", domain)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range list {
		note := ""
		if s.elsewhere {
			note = " ; the port of the proxy in front"
		}
		fmt.Fprintf(t, "%s.%s.\tIN SRV\t%d 1 %d %s.%s\n", s.name, domain, s.priority, s.port, host, note)
		if s.dav {
			fmt.Fprintf(t, "%s.%s.\tIN TXT\t\"path=%s\"\n", s.name, domain, davPath)
		}
	}
	t.Flush()
	fmt.Fprintln(w)
}

// dnsLook asks DNS and reports what it finds.
type dnsLook struct {
	resolver *net.Resolver
	host     string
	report   func(Finding)
}

// hostName looks whether the name that all records lead to has an address; false: DNS does not answer at all.
func (d *dnsLook) hostName(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, dnsTimeout)
	defer cancel()
	f := Finding{Subject: "dns " + d.host}
	addresses, err := d.resolver.LookupHost(ctx, d.host+".") // with the dot no search list is tried
	missing := isMissing(err)
	switch {
	case missing:
		f.Err = fmt.Errorf("the name that apps are led to has no address; add an A or AAAA record for it, or set hostname to one that has")
	case err != nil:
		f.Err = d.unasked(err)
	default:
		f.Detail = strings.Join(addresses, " ")
	}
	d.report(f)
	return err == nil || missing
}

func isMissing(err error) bool {
	e, ok := errors.AsType[*net.DNSError](err)
	return ok && e.IsNotFound
}

// unasked says what to do where nobody answers. A resolver with a Dial of its own is the one that --resolver names; Go's error names the system's all the same.
func (d *dnsLook) unasked(err error) error {
	e, ok := errors.AsType[*net.DNSError](err)
	switch {
	case d.resolver.Dial == nil || !ok:
		return fmt.Errorf("DNS gave no answer: %w; look at /etc/resolv.conf, or name a server with --resolver", err)
	case e.IsTimeout:
		return fmt.Errorf("DNS gave no answer: no word from the server that --resolver names; look whether it is a DNS server that this machine reaches: %s", e.Err)
	}
	return fmt.Errorf("DNS gave no answer: the server that --resolver names can't be asked; look whether it is a DNS server: %s", e.Err)
}

// domain looks at a domain's records; false: DNS does not answer any more.
func (d *dnsLook) domain(ctx context.Context, domain string, list []service) bool {
	ctx, cancel := context.WithTimeout(ctx, dnsTimeout)
	defer cancel()
	for _, s := range list {
		f, answered := d.service(ctx, domain, s, list)
		d.report(f)
		if !answered {
			return false
		}
	}
	for _, kind := range services { // those that lead past Postern
		if slices.ContainsFunc(list, func(s service) bool { return s.name == kind.name }) || !slices.ContainsFunc(list, func(s service) bool { return related(s.name, kind.name) }) {
			continue
		}
		if records, err := d.lookup(ctx, kind.name+"."+domain); err == nil && len(records) > 0 {
			d.report(d.unserved(kind.name+"."+domain, records))
		}
	}
	return true
}

// related tells whether two services are one protocol with TLS from the start and with STARTTLS.
func related(a, b string) bool {
	stem := func(s string) string { return strings.TrimSuffix(strings.TrimSuffix(s, "._tcp"), "s") }
	return stem(a) == stem(b)
}

func (d *dnsLook) lookup(ctx context.Context, name string) ([]*net.SRV, error) {
	_, records, err := d.resolver.LookupSRV(ctx, "", "", name+".")
	if isMissing(err) {
		return nil, nil
	}
	records = slices.DeleteFunc(records, func(r *net.SRV) bool { return r.Target == "." }) // "not offered"
	slices.SortFunc(records, func(a, b *net.SRV) int { return cmp.Compare(a.Priority, b.Priority) })
	return records, err
}

// service looks at one service's records.
func (d *dnsLook) service(ctx context.Context, domain string, s service, list []service) (f Finding, answered bool) {
	name := s.name + "." + domain
	f.Subject = "dns " + name
	records, err := d.lookup(ctx, name)
	want := net.JoinHostPort(d.host, strconv.Itoa(int(s.port)))
	switch {
	case err != nil:
		f.Err = d.unasked(err)
		return f, false
	case len(records) == 0 && slices.ContainsFunc(list, func(o service) bool { return o.priority < s.priority && related(o.name, s.name) }):
		f.Detail = "not there; apps take the one with TLS from the start"
		return f, true
	case len(records) == 0:
		f.Err = fmt.Errorf("it is missing, so apps can't find %s by the mail address; add the record above", want)
		return f, true
	case !d.leadsHere(records[0], s):
		f.Err = fmt.Errorf("it leads to %s, not to %s; change it to the record above", places(records), want)
		return f, true
	case !d.leadsHere(records[len(records)-1], s):
		f.Untried = "some apps are led to " + places(slices.DeleteFunc(slices.Clone(records), func(r *net.SRV) bool { return d.leadsHere(r, s) })) + " as well"
	}
	f.Detail = "leads to " + places(records[:1])
	if s.dav {
		err = d.path(ctx, name, &f)
	}
	return f, err == nil
}

// path looks at the path that stands beside a record of DAV. Apps that find none ask /.well-known, which leads on.
func (d *dnsLook) path(ctx context.Context, name string, f *Finding) error {
	texts, err := d.resolver.LookupTXT(ctx, name+".")
	if err != nil && !isMissing(err) {
		f.Err = d.unasked(err)
		return err
	}
	for _, text := range texts {
		path, ok := strings.CutPrefix(text, "path=")
		switch {
		case !ok:
		case strings.TrimSuffix(path, "/") == strings.TrimSuffix(davPath, "/"), path == "/":
			f.Detail += path
			return nil
		default:
			f.Err = fmt.Errorf("its TXT record says path=%s, where nothing is; change it to \"path=%s\"", path, davPath)
			return nil
		}
	}
	f.Untried = strings.TrimPrefix(f.Untried+"; it has no TXT record with the path, so apps have to ask once more", "; ")
	return nil
}

func (d *dnsLook) leadsHere(r *net.SRV, s service) bool {
	return strings.EqualFold(strings.TrimSuffix(r.Target, "."), d.host) && (r.Port == s.port || s.elsewhere)
}

// unserved is about a record of a service that Postern does not offer, of a protocol that it does.
func (d *dnsLook) unserved(name string, records []*net.SRV) Finding {
	f := Finding{Subject: "dns " + name}
	if strings.EqualFold(strings.TrimSuffix(records[0].Target, "."), d.host) {
		f.Err = fmt.Errorf("it leads to %s, but no listener is there; take the record out, or add the listener", places(records))
		return f
	}
	f.Detail = "leads to " + places(records)
	f.Untried = "that is not Postern; take the record out if apps should come here"
	return f
}

func places(records []*net.SRV) string {
	var list []string
	for _, r := range records {
		list = append(list, net.JoinHostPort(strings.TrimSuffix(r.Target, "."), strconv.Itoa(int(r.Port))))
	}
	return strings.Join(list, ", ")
}
