//go:build !linux

package gateway

import "context"

// keepCores leaves it to Go, which uses all of them.
func keepCores(context.Context) {}

func spareCore() (done func()) { return func() {} }
