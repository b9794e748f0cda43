package testlab

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"testing"
)

// owner is the ordinary user who owns the data of a daemon that does not work as root.
type owner struct {
	name, group string
	uid, gid    int
}

// unprivileged is whoever runs the tests, or nobody if that is root.
func unprivileged(t testing.TB) owner {
	t.Helper()
	u, err := user.Current()
	if err == nil && u.Uid == "0" {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		t.Fatal(err)
	}
	g, err := user.LookupGroupId(u.Gid)
	if err != nil {
		t.Fatal(err)
	}
	o := owner{name: u.Username, group: g.Name}
	o.uid, _ = strconv.Atoi(u.Uid)
	o.gid, _ = strconv.Atoi(u.Gid)
	return o
}

// give hands a file or folder over to the owner.
func (o owner) give(path string) error {
	if os.Getuid() != 0 {
		return nil
	}
	return os.Chown(path, o.uid, o.gid)
}

// folder makes a folder of the owner's and returns its path.
func (o owner) folder(t testing.TB, path ...string) string {
	t.Helper()
	dir := filepath.Join(path...)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := o.give(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// run is the command line that runs a program as the owner.
func (o owner) run(argv ...string) []string {
	if os.Getuid() != 0 {
		return argv
	}
	return append([]string{find("setpriv"), "--reuid=" + o.name, "--regid=" + o.group, "--clear-groups"}, argv...)
}
