package testlab

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// The entries of the lab's directory.
const (
	SlapdBase   = "dc=example,dc=test"
	SlapdPeople = "ou=people," + SlapdBase
	SlapdGroups = "ou=groups," + SlapdBase
	SlapdAdmin  = "cn=admin," + SlapdBase   // may do everything, with the password of SlapdReader
	SlapdReader = "cn=postern," + SlapdBase // may read people, also operational attributes, but no passwords
)

// SlapdServer is one slapd with the lab's users, each with the overlays memberof and ppolicy.
type SlapdServer struct {
	*Server
	Addr         string // host:port, STARTTLS
	TLS          string // host:port, TLS
	CA           *CA    // of its certificate, for localhost, 127.0.0.1, ::1 and ldap.example.test
	Password     string // of SlapdReader and SlapdAdmin
	PasswordFile string
}

var slapdConfig = template.Must(template.New("").Parse(`
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
moduleload ppolicy
pidfile {{.Dir}}/slapd.pid
argsfile {{.Dir}}/slapd.args
TLSCACertificateFile {{.CA}}
TLSCertificateFile {{.Cert}}
TLSCertificateKeyFile {{.Key}}
{{.Global}}
database mdb
suffix "{{.Base}}"
rootdn "{{.Admin}}"
rootpw {{.Password}}
directory {{.Dir}}/data
maxsize 104857600
index objectClass,mail,uid,entryUUID,member eq
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="{{.Reader}}" read by * none
{{.Database}}
overlay memberof
overlay ppolicy
ppolicy_default "cn=policy,{{.Base}}"
`))

// SlapdLines are lines for the server as a whole, such as "sizelimit 500", and for its database, which stand before its overlays.
type SlapdLines struct{ Global, Database string }

// Slapd starts a slapd. more people than the lab's users have the addresses uN@example.test.
func Slapd(t testing.TB, more int, lines ...SlapdLines) *SlapdServer {
	t.Helper()
	Need(t, "slapd")
	dir, ports, ca := Dir(t), Ports(t, 2), NewCA(t)
	cert, key, _ := ca.Issue("ldap.example.test")
	s := &SlapdServer{Addr: local(ports[0]), TLS: local(ports[1]), CA: ca, Password: "reader-secret"}
	s.PasswordFile = filepath.Join(dir, "reader.password")
	var global, database string
	for _, l := range lines {
		global, database = global+l.Global+"\n", database+l.Database+"\n"
	}
	var config strings.Builder
	if err := slapdConfig.Execute(&config, map[string]string{"Dir": dir, "CA": ca.File, "Cert": cert, "Key": key, "Base": SlapdBase, "Admin": SlapdAdmin,
		"Reader": SlapdReader, "Password": s.Password, "Global": global, "Database": database}); err != nil {
		t.Fatal(err)
	}
	conf, data := write(t, config.String(), dir, "slapd.conf"), write(t, s.ldif(more), dir, "data.ldif")
	if err := os.WriteFile(s.PasswordFile, []byte(s.Password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	Run(t, Command(t, "slapadd", "-q", "-f", conf, "-l", data))
	s.Server = serve(t, "slapd", dir, launch{
		argv: []string{find("slapd"), "-d", "256", "-f", conf, "-h", fmt.Sprintf("ldap://%s/ ldaps://%s/", s.Addr, s.TLS)},
		ready: func() error {
			c, err := net.DialTimeout("tcp", s.TLS, time.Second)
			if err == nil {
				c.Close()
			}
			return err
		},
	})
	// added to the running server, so that the overlay memberof sees it
	s.Add("cn=staff,"+SlapdGroups, map[string][]string{"objectClass": {"groupOfNames"}, "member": {PersonDN("alice"), PersonDN("bob")}})
	s.Add("cn=admins,"+SlapdGroups, map[string][]string{"objectClass": {"groupOfNames"}, "member": {PersonDN("alice")}})
	return s
}

// PersonDN is the entry of a person of the lab's directory, by the part of the address before the @.
func PersonDN(local string) string { return "uid=" + local + "," + SlapdPeople }

// slapdChanged is when the lab's users changed their passwords last, as the directory has it.
const slapdChanged = "20200101000000Z"

func (s *SlapdServer) ldif(more int) string {
	var b strings.Builder
	entry := func(lines ...string) { b.WriteString(strings.Join(lines, "\n") + "\n\n") }
	entry("dn: "+SlapdBase, "objectClass: organization", "objectClass: dcObject", "o: Example", "dc: example")
	entry("dn: "+SlapdPeople, "objectClass: organizationalUnit", "ou: people")
	entry("dn: "+SlapdGroups, "objectClass: organizationalUnit", "ou: groups")
	entry("dn: "+SlapdReader, "objectClass: organizationalRole", "objectClass: simpleSecurityObject", "cn: postern", "userPassword: "+s.Password)
	entry("dn: cn=policy,"+SlapdBase, "objectClass: device", "objectClass: pwdPolicy", "cn: policy", "pwdAttribute: userPassword")
	for _, user := range users {
		local, _, _ := strings.Cut(user, "@")
		entry("dn: "+PersonDN(local), "objectClass: inetOrgPerson", "uid: "+local, "cn: "+local, "sn: Example", "mail: "+user,
			"userPassword: "+Primary(user), "pwdChangedTime: "+slapdChanged)
	}
	for i := range more {
		entry(fmt.Sprintf("dn: uid=u%d,%s", i, SlapdPeople), "objectClass: inetOrgPerson", fmt.Sprintf("uid: u%d", i), "cn: u", "sn: Example",
			fmt.Sprintf("mail: u%d@example.test", i), "pwdChangedTime: "+slapdChanged)
	}
	return b.String()
}

// admin does something as SlapdAdmin.
func (s *SlapdServer) admin(do func(*ldap.Conn) error) {
	s.t.Helper()
	c, err := ldap.DialURL("ldaps://"+s.TLS, ldap.DialWithTLSConfig(&tls.Config{RootCAs: s.CA.Pool, ServerName: "localhost"}))
	if err == nil {
		defer c.Close()
		c.SetTimeout(patience)
		err = c.Bind(SlapdAdmin, s.Password)
	}
	if err == nil {
		err = do(c)
	}
	if err != nil {
		s.t.Fatalf("slapd: %v", err)
	}
}

// Add adds an entry.
func (s *SlapdServer) Add(dn string, attributes map[string][]string) {
	s.t.Helper()
	s.admin(func(c *ldap.Conn) error {
		r := ldap.NewAddRequest(dn, nil)
		for name, values := range attributes {
			r.Attribute(name, values)
		}
		return c.Add(r)
	})
}

// AddPerson adds a person with an address and a password.
func (s *SlapdServer) AddPerson(uid, password string, mail ...string) {
	s.t.Helper()
	s.Add(PersonDN(uid), map[string][]string{"objectClass": {"inetOrgPerson"}, "cn": {uid}, "sn": {"Example"}, "mail": mail, "userPassword": {password}})
}

// Set replaces an attribute; without values it is removed. Operational ones can be set too.
func (s *SlapdServer) Set(dn, attribute string, values ...string) {
	s.t.Helper()
	s.admin(func(c *ldap.Conn) error {
		r := ldap.NewModifyRequest(dn, []ldap.Control{ldap.NewControlString("1.3.6.1.4.1.4203.666.5.12", true, "")}) // relax
		r.Replace(attribute, values)
		return c.Modify(r)
	})
}

// Rename gives an entry another name among its neighbours.
func (s *SlapdServer) Rename(dn, rdn string) {
	s.t.Helper()
	s.admin(func(c *ldap.Conn) error { return c.ModifyDN(ldap.NewModifyDNRequest(dn, rdn, true, "")) })
}

// Delete removes an entry.
func (s *SlapdServer) Delete(dn string) {
	s.t.Helper()
	s.admin(func(c *ldap.Conn) error { return c.Del(ldap.NewDelRequest(dn, nil)) })
}
