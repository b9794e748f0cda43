package identity

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"
)

// A state is what a dialogue in two steps knows of its first. The browser keeps it, sealed and bound to kind, account and session, so that
// the first step costs no write, whoever asks.

// How long a state is taken.
const (
	ceremonyFor  = 5 * time.Minute
	enrolmentFor = 15 * time.Minute
)

// The kinds of states.
const (
	stateProve  = "prove"   // with a passkey, the session's account
	stateSignIn = "sign in" // with a passkey, whoever it is
	stateAdd    = "add"     // a passkey
	stateEnrol  = "enrol"   // a TOTP
)

type state struct {
	Until int64
	Data  json.RawMessage
}

// spent identifies an opened state in the store of what was used.
type spent struct {
	digest []byte
	until  time.Time
}

// maxState bounds what is opened, in bytes.
const maxState = 16 << 10

func statePlace(kind string, s *Session) string {
	if s == nil {
		return "portal state/" + kind
	}
	return fmt.Sprintf("portal state/%s/%d/%d", kind, s.Account, s.ID)
}

func (p *People) sealState(ctx context.Context, kind string, s *Session, data any, life time.Duration) (string, error) {
	inner, err := json.Marshal(data)
	if err != nil {
		return "", err
	}
	plain, err := json.Marshal(state{p.now().Add(life).Unix(), inner})
	if err != nil {
		return "", err
	}
	defer clear(plain)
	defer clear(inner)
	sealed, err := p.sealRow(ctx, plain, statePlace(kind, s))
	return base64.RawURLEncoding.EncodeToString(sealed.Value), err
}

// openState opens what sealState sealed for the same kind and session; ErrWrongCode.
func (p *People) openState(kind string, s *Session, text string, data any) (spent, error) {
	if len(text) > maxState {
		return spent{}, ErrWrongCode
	}
	sealed, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return spent{}, ErrWrongCode
	}
	plain, err := p.o.Keys().OpenRow(sealed, statePlace(kind, s))
	if err != nil {
		return spent{}, ErrWrongCode
	}
	defer clear(plain)
	var st state
	if err := json.Unmarshal(plain, &st); err != nil {
		return spent{}, ErrWrongCode
	}
	defer clear(st.Data)
	until := time.Unix(st.Until, 0)
	if !until.After(p.now()) || json.Unmarshal(st.Data, data) != nil {
		return spent{}, ErrWrongCode
	}
	digest := sha256.Sum256(plain) // not of text, which has more than one form
	return spent{digest[:], until.Add(time.Minute)}, nil
}

// spend uses a state up; ErrWrongCode where it was used before.
func (s spent) spend(ctx context.Context, tx Tx) error {
	first, err := tx.Spend(ctx, s.digest, s.until)
	if err == nil && !first {
		return ErrWrongCode
	}
	return err
}
