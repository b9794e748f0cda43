package secret

import (
	"encoding/binary"
	"strconv"
	"time"
)

// Tickets are sealed with a key of the hour, and opened for as many hours. A mail app that sleeps over night resumes in the morning;
// a key that leaks is of use against no more than a day's sessions.
const (
	ticketHour  = 3600
	ticketHours = 24
)

// SealTicket seals the state of a TLS session for the client to keep. The key comes from the newest root key and the time alone, so
// that every node with the same key file opens it, and a restart changes nothing.
func (k *Keyring) SealTicket(state []byte, now time.Time) ([]byte, error) {
	key, hour := k.keys[len(k.keys)-1], now.Unix()/ticketHour
	aead, err := newAEAD(key.root, ticketPurpose(hour))
	if err != nil {
		return nil, err
	}
	ticket := make([]byte, 8, 8+len(state)+aead.Overhead())
	binary.BigEndian.PutUint32(ticket, key.number)
	binary.BigEndian.PutUint32(ticket[4:], uint32(hour))
	return aead.Seal(ticket, nil, state, nil), nil
}

// OpenTicket opens what SealTicket sealed within the last 24 hours, by the clock's hours, or in the next one, for nodes' clocks differ.
// The errors are ErrNotOpened and ErrUnknownKey: whatever a stranger sends is one of them.
func (k *Keyring) OpenTicket(ticket []byte, now time.Time) ([]byte, error) {
	if len(ticket) < 8 {
		return nil, ErrNotOpened
	}
	key := k.find(binary.BigEndian.Uint32(ticket))
	if key == nil {
		return nil, ErrUnknownKey
	}
	hour := int64(binary.BigEndian.Uint32(ticket[4:]))
	if age := now.Unix()/ticketHour - hour; age < -1 || age >= ticketHours {
		return nil, ErrNotOpened
	}
	// Two microseconds, of some hundred that a handshake takes: the hours' keys are not kept.
	aead, err := newAEAD(key.root, ticketPurpose(hour))
	if err != nil {
		return nil, err
	}
	state, err := aead.Open(nil, nil, ticket[8:], nil)
	if err != nil {
		return nil, ErrNotOpened
	}
	return state, nil
}

func ticketPurpose(hour int64) string { return purposeTicket + strconv.FormatInt(hour, 10) }
