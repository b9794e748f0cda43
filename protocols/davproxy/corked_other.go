//go:build !linux

package davproxy

// msgMore says that more follows, where the system can be told.
const msgMore = 0
