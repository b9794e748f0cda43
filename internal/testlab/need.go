package testlab

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// packages names the Debian package that brings a program.
var packages = map[string]string{
	"/usr/bin/python3":                 "python3",
	"/usr/lib/dovecot/managesieve":     "dovecot-managesieved",
	"/usr/lib/dovecot/pop3":            "dovecot-pop3d",
	"/usr/lib/dovecot/submission":      "dovecot-submissiond",
	"/usr/lib/php/*/dom.so":            "php-xml",
	"/usr/lib/php/*/mbstring.so":       "php-mbstring",
	"/usr/lib/php/*/pdo_pgsql.so":      "php-pgsql",
	"/usr/lib/php/*/pdo_sqlite.so":     "php-sqlite3",
	"calcurse-caldav":                  "calcurse",
	"chromium":                         "chromium",
	"curl":                             "curl",
	"dnsmasq":                          "dnsmasq-base",
	"dovecot":                          "dovecot-imapd",
	"fetchmail":                        "fetchmail",
	"getmail":                          "getmail6",
	"/usr/lib/postgresql/*/bin/initdb": "postgresql",
	"mbsync":                           "isync",
	"msmtp":                            "msmtp",
	"nginx":                            "nginx",
	"node":                             "nodejs",
	"openssl":                          "openssl",
	"php":                              "php-cli",
	"postfix":                          "postfix",
	"radicale":                         "radicale",
	"redis-server":                     "redis-server",
	"script":                           "bsdutils",
	"setpriv":                          "util-linux",
	"sievec":                           "dovecot-sieve",
	"slapadd":                          "slapd",
	"slapd":                            "slapd",
	"strace":                           "strace",
	"swaks":                            "swaks",
	"systemd-analyze":                  "systemd",
	"unshare":                          "util-linux",
	"vdirsyncer":                       "vdirsyncer",
	"xandikos":                         "xandikos",
	"xmllint":                          "libxml2-utils",

	"/usr/lib/python3*/dist-packages/caldav/davclient.py":  "python3-caldav",
	"/usr/lib/python3*/dist-packages/httplib2/__init__.py": "python3-httplib2",
}

// Need ends the test unless all programs are there. A missing one fails it where the whole suite is meant to run (CI=true, or
// POSTERN_TEST=full, which test.sh sets), so that nothing is green by absence; elsewhere the test is skipped.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	for _, name := range programs {
		if find(name) != "" {
			continue
		}
		pkg := packages[name]
		if pkg == "" {
			pkg = name
		}
		if full() {
			t.Fatalf("%s is missing; ./test.sh installs it, or: apt-get install %s", name, pkg)
		}
		t.Skipf("%s is missing; ./test.sh installs it, or: apt-get install %s", name, pkg)
	}
}

// needRoot ends the test unless root runs it. CI is root; elsewhere the whole suite is for ordinary users too.
func needRoot(t testing.TB, name string) {
	t.Helper()
	const text = "%s is started by root only; run the tests as root"
	switch {
	case os.Getuid() == 0:
	case os.Getenv("CI") == "true":
		t.Fatalf(text, name)
	default:
		t.Skipf(text, name)
	}
}

func full() bool { return os.Getenv("CI") == "true" || os.Getenv("POSTERN_TEST") == "full" }

// find also looks where Debian puts daemons, which an ordinary user's PATH leaves out. A path may have stars in it.
func find(name string) string {
	if strings.Contains(name, "*") {
		found, _ := filepath.Glob(name)
		if len(found) == 0 {
			return ""
		}
		return found[len(found)-1]
	}
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	postgres, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	for _, dir := range append(postgres, "/usr/sbin", "/usr/bin", "/sbin") {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	return ""
}
