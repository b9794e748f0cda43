package relay

import (
	"errors"
	"time"

	"postern/protocols/parking"
)

// errParked ends the goroutine of a direction that goes on when its peer says something.
var errParked = errors.New("parked")

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
	if err := lot.Park(d.from, d.direction, &d.spot); err != nil {
		d.parked = false
		return err
	}
	return errParked
}

// Unpark is called when the peer has said something, or has closed.
func (d *direction) Unpark() {
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
	if d.spot != 0 {
		d.relay.lot.Leave(&d.spot)
	}
}

// parkingLot is made with the first direction that parks.
func (r *Relay) parkingLot() (parking.Lot, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lot == nil {
		lot, err := parking.New()
		if err != nil {
			return nil, err
		}
		r.lot = lot
	}
	return r.lot, nil
}
