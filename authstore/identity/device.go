package identity

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"time"

	"postern/authstore"
	"postern/authstore/secret"
)

const (
	purposeDevice = "portal device v1"
	deviceFor     = 365 * 24 * time.Hour
	// A device's cookie is the key's number, a random id, when it ends, and their MAC with the account.
	deviceID   = 4
	deviceEnds = deviceID + 16
	deviceMAC  = deviceEnds + 8
	deviceSize = deviceMAC + 32
)

// Device is the cookie by which a browser is known at the next sign-in, for v.Device. It opens nothing: its browser is only counted apart
// from strangers who guess. Empty for a session that is not signed in.
func (p *People) Device(s Session) string {
	if s.Stage != SignedIn {
		return ""
	}
	keys := p.o.Keys()
	c := binary.BigEndian.AppendUint32(make([]byte, 0, deviceSize), keys.Newest())
	c = c[:deviceEnds]
	rand.Read(c[deviceID:])
	c = binary.BigEndian.AppendUint64(c, uint64(p.now().Add(deviceFor).Unix()))
	mac, err := keys.MAC(keys.Newest(), purposeDevice, number(s.Account), string(c))
	if err != nil {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(append(c, mac...))
}

// knownDevice is the id of a browser that the account was signed in with; empty: a stranger's.
func (p *People) knownDevice(cookie string, id authstore.AccountID) string {
	c, err := base64.RawURLEncoding.DecodeString(cookie)
	if err != nil || len(c) != deviceSize {
		return ""
	}
	mac, err := p.o.Keys().MAC(binary.BigEndian.Uint32(c), purposeDevice, number(id), string(c[:deviceMAC]))
	if err != nil || !secret.Equal(mac, c[deviceMAC:]) {
		return ""
	}
	if ends := time.Unix(int64(binary.BigEndian.Uint64(c[deviceEnds:])), 0); !ends.After(p.now()) {
		return ""
	}
	return string(c[deviceID:deviceEnds])
}
