package testlab

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
)

// owner is the ordinary user who owns the data of a daemon that does not work as root.
type owner struct {
	name, group string
	uid, gid    int
}

// unprivileged is whoever runs the tests, or nobody if that is root.
func unprivileged() (owner, error) {
	u, err := user.Current()
	if err == nil && u.Uid == "0" {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		return owner{}, err
	}
	g, err := user.LookupGroupId(u.Gid)
	if err != nil {
		return owner{}, err
	}
	o := owner{name: u.Username, group: g.Name}
	if o.uid, err = strconv.Atoi(u.Uid); err != nil {
		return owner{}, fmt.Errorf("user %s: %w", u.Username, err)
	}
	if o.gid, err = strconv.Atoi(u.Gid); err != nil {
		return owner{}, fmt.Errorf("user %s: %w", u.Username, err)
	}
	return o, nil
}

// give hands a file or folder over to the owner.
func (o owner) give(path string) error {
	if os.Getuid() != 0 {
		return nil
	}
	return os.Chown(path, o.uid, o.gid)
}
