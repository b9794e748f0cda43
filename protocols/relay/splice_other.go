//go:build !linux

package relay

func (d *direction) canSplice() bool { return false }
func (d *direction) splice() error   { return nil }
