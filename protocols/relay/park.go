package relay

import (
	"errors"
	"syscall"
	"time"
)

// errParked ends the goroutine of a direction that goes on when its peer says something.
var errParked = errors.New("parked")

const noSpot = -1

// canPark reports whether there is a socket to wait for.
func (d *direction) canPark() bool {
	_, ok := lowest(d.from()).(syscall.Conn)
	return ok
}

// park gives the direction's goroutine and its deadlines up until its peer says something.
func (d *copier) park() error {
	lot, err := d.relay.parkingLot()
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped() {
		return errLeaving
	}
	d.from.SetReadDeadline(time.Time{}) // a deadline is a timer of the runtime's
	if d.isUp() {
		d.to.SetWriteDeadline(time.Time{})
	} else if d.toward.TryLock() { // else words of ours are being written, which may stall
		d.to.SetWriteDeadline(time.Time{})
		d.toward.Unlock()
	}
	d.parked, d.since = true, clock()
	if err := lot.park(d.direction); err != nil {
		d.parked = false
		return err
	}
	return errParked
}

// unpark is called when the peer has said something, or has closed.
func (d *direction) unpark() {
	d.mu.Lock()
	parked := d.parked
	d.parked = false
	d.mu.Unlock()
	if parked {
		go d.run()
	}
}

// finishParked ends a direction that nobody else will. It is called with Session.mu held.
func (d *direction) finishParked() {
	if !d.parked {
		return
	}
	d.parked = false
	d.leaveLot()
	if d.finish() {
		go d.conclude() // who ends sessions must not wait
	}
}

// leaveLot is called with Session.mu held.
func (d *direction) leaveLot() {
	if d.spot != noSpot {
		d.relay.lot.leave(d.spot)
		d.spot = noSpot
	}
}

// parking is where directions wait for their peers.
type parking interface {
	// park takes a direction in, and calls its unpark when its peer has said something or has closed: nothing is missed that came before.
	park(d *direction) error
	// leave gives a spot back that park gave the direction.
	leave(spot int32)
	// close ends what waits. No direction is parked any more.
	close()
}

// parkingLot is made with the first direction that parks.
func (r *Relay) parkingLot() (parking, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lot == nil {
		lot, err := newParking()
		if err != nil {
			return nil, err
		}
		r.lot = lot
	}
	return r.lot, nil
}
