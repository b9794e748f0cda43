//go:build !linux

package authstore

import "time"

var processStart = time.Now()

// bootTime is Go's monotonic clock, which on some systems stops while the machine sleeps: there a lease may outlive a suspend.
func bootTime() time.Duration { return time.Since(processStart) }
