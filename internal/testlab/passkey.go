package testlab

import "github.com/descope/virtualwebauthn"

// coseSize is how long a public key is whose coordinates have all their bytes (RFC 9053 section 7.1.1).
const coseSize = 77

// NewPasskey makes a software authenticator's key. Of the library's own, one in 128 is malformed: it leaves a coordinate's leading zeros out.
func NewPasskey() virtualwebauthn.Credential {
	for {
		if c := virtualwebauthn.NewCredential(virtualwebauthn.KeyTypeEC2); len(c.Key.AttestationData()) == coseSize {
			return c
		}
	}
}
