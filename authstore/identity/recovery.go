package identity

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"slices"
	"strconv"
	"strings"
)

const (
	recoveryCodes   = 10
	recoveryLetters = 10 // of five bits each
	// recoveryAlphabet is Crockford's: what people take for 1 and 0 is read as these.
	recoveryAlphabet = "0123456789abcdefghjkmnpqrstvwxyz"
)

func newRecoveryCode() string {
	var b [recoveryLetters]byte
	rand.Read(b[:])
	for i := range b {
		b[i] = recoveryAlphabet[int(b[i])%len(recoveryAlphabet)]
	}
	return string(b[:])
}

// canonicalRecovery is a recovery code as it is compared; empty: it has not that shape. Dashes and blanks are gone already.
func canonicalRecovery(typed string) string {
	code := strings.NewReplacer("o", "0", "i", "1", "l", "1").Replace(strings.ToLower(typed))
	if len(code) != recoveryLetters || strings.Trim(code, recoveryAlphabet) != "" {
		return ""
	}
	return code
}

// giveRecovery takes a recovery code, once.
func (p *People) giveRecovery(ctx context.Context, v Visitor, s Session, of Person, code string, charges []Charge) (t Token, next Session, err error) {
	typed := sha256.Sum256([]byte(code))
	found := 0
	for _, c := range of.Recovery {
		digest, err := p.openRow(c.Sealed, recoveryPlace(of.ID, c.Number))
		if err != nil {
			return "", Session{}, err
		}
		if subtle.ConstantTimeCompare(digest, typed[:]) == 1 {
			found = c.Number
		}
	}
	if found == 0 {
		return "", Session{}, ErrWrongCode
	}
	_, err = p.o.Truth.Act(ctx, v.Actor(), s.Account, func(tx Tx) error {
		if next, err = p.in(ctx, tx, s, AwaitsFactor, SignedIn); err != nil {
			return err
		}
		// the codes may have been made anew since: then the number means another
		now, err := tx.Person(ctx)
		if err != nil {
			return err
		}
		if !sameCode(of, now, found) {
			return ErrWrongCode
		}
		first, err := tx.UseRecovery(ctx, found, p.now())
		if err != nil {
			return err
		}
		if !first {
			return ErrWrongCode
		}
		if err := tx.Event(ctx, "recovery.used", strconv.Itoa(len(now.Recovery)-1)); err != nil {
			return err
		}
		if err := tx.Refund(ctx, charges); err != nil {
			return err
		}
		t, err = p.advance(ctx, tx, v, &next, "recovery")
		return err
	})
	return t, next, err
}

// sameCode reports whether a code's row is as it was.
func sameCode(was, is Person, number int) bool {
	return slices.ContainsFunc(was.Recovery, func(c StoredCode) bool {
		return c.Number == number && slices.ContainsFunc(is.Recovery, func(d StoredCode) bool {
			return d.Number == number && bytes.Equal(c.Sealed.Value, d.Sealed.Value)
		})
	})
}

// RenewRecoveryCodes makes ten recovery codes in place of those there were. They are shown once; ErrStepUp.
func (p *People) RenewRecoveryCodes(ctx context.Context, v Visitor, s Session) ([]string, error) {
	key, err := p.o.Accounts.UsableKey(ctx)
	if err != nil {
		return nil, err
	}
	shown := make([]string, recoveryCodes)
	sealed := make([]Sealed, recoveryCodes)
	for i := range shown {
		code := newRecoveryCode()
		digest := sha256.Sum256([]byte(code))
		if sealed[i], err = p.sealWith(key, digest[:], recoveryPlace(s.Account, i+1)); err != nil {
			return nil, err
		}
		shown[i] = code[:5] + "-" + code[5:]
	}
	_, err = p.o.Truth.Act(ctx, v.Actor(), s.Account, func(tx Tx) error {
		if _, err := p.inFresh(ctx, tx, s); err != nil {
			return err
		}
		if err := tx.SetRecovery(ctx, sealed); err != nil {
			return err
		}
		return tx.Event(ctx, "recovery.renewed", "")
	})
	if err != nil {
		return nil, err
	}
	return shown, nil
}
