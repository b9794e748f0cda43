//go:build !linux

package relay

import "errors"

// lot is never made: a quiet direction keeps its goroutine, and a small buffer.
type lot struct{}

func newLot() (*lot, error) { return nil, errors.ErrUnsupported }

func (d *direction) canPark() bool { return false }

func (*lot) park(*direction) error { return errors.ErrUnsupported }
func (*lot) leave(int32)           {}
func (*lot) close()                {}
