package davproxy

import "golang.org/x/sys/unix"

// msgMore says that more follows (send(2)).
const msgMore = unix.MSG_MORE
