package authstore

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"
)

// A cached snapshot is binary: a version byte, then numbers as varints, texts and lists with their length before them. It stands
// under a seal, so that only our own mistakes and other versions can make it malformed; it is read with bounds all the same.

const (
	// codecVersion tells the layout; another one is a miss. A change of the layout takes the next number.
	codecVersion = 3
	// l2Life is how long a cached snapshot may be used; its end stands inside the seal, so that nobody can prolong it.
	l2Life = 5 * time.Minute
	// maxText bounds a text in a cached snapshot, in bytes.
	maxText = 1024
	// MaxNetworks bounds the allowed networks of one app password.
	MaxNetworks = 32
)

// cached is what a value of the shared cache says.
type cached struct {
	notAfter time.Time // to the second
	mark     string    // of the change at which the snapshot was read: tells one history from another
	snapshot *Snapshot // its epoch is not written: the seal is bound to it
}

func (c *cached) encode() []byte {
	s := c.snapshot
	b := append(make([]byte, 0, 256+128*(len(s.Active)+len(s.Ended))), codecVersion)
	b = binary.AppendVarint(b, c.notAfter.Unix())
	b = appendText(b, c.mark)
	b = binary.AppendUvarint(b, s.Sequence)
	b = binary.AppendUvarint(b, uint64(s.Account))
	b = appendText(b, s.PublicID)
	b = appendText(b, s.Address)
	b = binary.AppendUvarint(b, uint64(s.Status))
	b = binary.AppendUvarint(b, s.Version)
	b = appendText(b, s.BackendName)
	for _, list := range [2][]Verifiable{s.Active, s.Ended} {
		b = binary.AppendUvarint(b, uint64(len(list)))
		for i := range list {
			b = list[i].append(b)
		}
	}
	return b
}

func (v *Verifiable) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(v.ID))
	b = binary.AppendUvarint(b, uint64(v.Key))
	b = append(b, v.Digest[:]...)
	b = binary.AppendUvarint(b, uint64(v.Scopes))
	b = appendFlag(b, v.Revoked)
	b = appendFlag(b, !v.Expires.IsZero())
	if !v.Expires.IsZero() {
		b = binary.AppendVarint(b, v.Expires.Unix())
	}
	b = binary.AppendUvarint(b, uint64(len(v.Networks)))
	for _, n := range v.Networks {
		address := n.Addr().AsSlice()
		b = append(b, byte(len(address)))
		b = append(b, address...)
		b = append(b, byte(n.Bits()))
	}
	b = binary.AppendUvarint(b, uint64(len(v.Collections)))
	for _, c := range v.Collections {
		b = appendText(b, c.String())
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendFlag(b []byte, set bool) []byte {
	if set {
		return append(b, 1)
	}
	return append(b, 0)
}

var errMalformed = errors.New("a cached snapshot is malformed, or of another version")

// decodeCached reads what encode made, all of it.
func decodeCached(b []byte) (*cached, error) {
	d := &decoder{rest: b}
	if d.octet() != codecVersion {
		return nil, errMalformed
	}
	c := &cached{notAfter: time.Unix(d.varint(), 0), mark: d.text(), snapshot: &Snapshot{}}
	s := c.snapshot
	s.Sequence = d.uvarint()
	s.Account = AccountID(d.uvarint())
	s.PublicID = d.text()
	s.Address = d.text()
	s.Status = Status(d.uvarint())
	s.Version = d.uvarint()
	s.BackendName = d.text()
	s.Active = d.verifiables()
	s.Ended = d.verifiables()
	if d.bad || len(d.rest) > 0 || s.Account == nobody {
		return nil, errMalformed
	}
	return c, nil
}

// decoder reads from the front of rest. After a fault it gives zeros, and bad is set.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.rest)) {
		d.rest, d.bad = nil, true
		return nil
	}
	taken := d.rest[:n]
	d.rest = d.rest[n:]
	return taken
}

func (d *decoder) octet() byte {
	b := d.take(1)
	if b == nil {
		return 0
	}
	return b[0]
}

func (d *decoder) flag() bool {
	b := d.octet()
	d.bad = d.bad || b > 1
	return b == 1
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	d.advance(n)
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.rest)
	d.advance(n)
	return v
}

func (d *decoder) advance(n int) {
	if n <= 0 {
		d.rest, d.bad = nil, true
		return
	}
	d.rest = d.rest[n:]
}

func (d *decoder) text() string {
	n := d.uvarint()
	if n > maxText {
		d.bad = true
		return ""
	}
	return string(d.take(n))
}

// length reads how many items a list has.
func (d *decoder) length(most int) int {
	n := d.uvarint()
	if n > uint64(most) {
		d.bad = true
		return 0
	}
	return int(n)
}

func (d *decoder) verifiables() []Verifiable {
	var list []Verifiable
	for n := d.length(MaxActive + MaxEnded); len(list) < n && !d.bad; {
		list = append(list, d.verifiable())
	}
	return list
}

func (d *decoder) verifiable() Verifiable {
	v := Verifiable{ID: PasswordID(d.uvarint()), Key: uint32(d.uvarint())}
	copy(v.Digest[:], d.take(uint64(len(v.Digest))))
	v.Scopes = Scopes(d.uvarint())
	v.Revoked = d.flag()
	if d.flag() {
		v.Expires = time.Unix(d.varint(), 0).UTC()
	}
	for n := d.length(MaxNetworks); len(v.Networks) < n && !d.bad; {
		v.Networks = append(v.Networks, d.network())
	}
	for n := d.length(MaxCollections); len(v.Collections) < n && !d.bad; {
		v.Collections = append(v.Collections, d.collection())
	}
	return v
}

func (d *decoder) network() netip.Prefix {
	address, ok := netip.AddrFromSlice(d.take(uint64(d.octet())))
	prefix := netip.PrefixFrom(address, int(d.octet()))
	d.bad = d.bad || !ok || !prefix.IsValid()
	return prefix
}

func (d *decoder) collection() Collection {
	c, err := ParseCollection(d.text())
	d.bad = d.bad || err != nil
	return c
}
