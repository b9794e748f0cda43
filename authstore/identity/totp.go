package identity

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base32"
	"image"
	"image/color"
	"image/draw"
	"image/png"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
	"github.com/pquerna/otp/totp"
)

// What every authenticator app knows (RFC 6238): SHA-1, six digits, half a minute; a code of the step before or after is taken too.
const (
	totpDigits = 6
	totpPeriod = 30
	totpSkew   = 1
	seedSize   = 20 // bytes: HMAC-SHA-1's own
)

var base32Plain = base32.StdEncoding.WithPadding(base32.NoPadding)

// steps are the steps for which a seed gives the code, of those that are taken now. All are computed, and compared in constant time.
func (p *People) steps(seed []byte, code string) ([]int64, error) {
	text := base32Plain.EncodeToString(seed)
	now := p.now().Unix() / totpPeriod
	var right []int64
	for step := now - totpSkew; step <= now+totpSkew; step++ {
		want, err := hotp.GenerateCodeCustom(text, uint64(step), hotp.ValidateOpts{Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1})
		if err != nil {
			return nil, err
		}
		if subtle.ConstantTimeCompare([]byte(want), []byte(code)) == 1 {
			right = append(right, step)
		}
	}
	return right, nil
}

// match is a step of a factor for which a code is right.
type match struct {
	factor FactorID
	step   int64
	sealed Sealed // the seed under a newer key; none: it stays
}

// giveTOTP takes a code of one of the account's authenticator apps, once.
func (p *People) giveTOTP(ctx context.Context, v Visitor, s Session, of Person, code string, charges []Charge) (t Token, next Session, err error) {
	matches, err := p.matching(ctx, of, code)
	if err != nil {
		return "", Session{}, err
	}
	_, err = p.o.Truth.Act(ctx, v.Actor(), s.Account, func(tx Tx) error {
		if next, err = p.in(ctx, tx, s, AwaitsFactor, SignedIn); err != nil {
			return err
		}
		for _, m := range matches {
			first, err := tx.TakeStep(ctx, m.factor, m.step)
			if err != nil {
				return err
			}
			if !first {
				continue
			}
			if err := tx.UseFactor(ctx, m.factor, m.sealed, p.now()); err != nil {
				return err
			}
			if err := tx.Refund(ctx, charges); err != nil {
				return err
			}
			t, err = p.advance(ctx, tx, v, &next, "totp")
			return err
		}
		return ErrWrongCode
	})
	return t, next, err
}

// matching finds what a code is right for. All seeds are tried, whether one was found already or not.
func (p *People) matching(ctx context.Context, of Person, code string) ([]match, error) {
	key, err := p.o.Accounts.UsableKey(ctx)
	if err != nil {
		return nil, err
	}
	var list []match
	for _, f := range of.Factors {
		if f.Kind != TOTP {
			continue
		}
		place := factorPlace(of.ID, f.ID)
		seed, err := p.openRow(f.Sealed, place)
		if err != nil {
			return nil, err
		}
		right, err := p.steps(seed, code)
		var sealed Sealed
		if err == nil && len(right) > 0 && f.Sealed.Key != key {
			sealed, err = p.sealWith(key, seed, place)
		}
		clear(seed)
		if err != nil {
			return nil, err
		}
		for _, step := range right {
			list = append(list, match{f.ID, step, sealed})
		}
	}
	return list, nil
}

// EnrolTOTP makes a seed for a new authenticator app. Nothing is kept before AddTOTP. ErrStepUp.
func (p *People) EnrolTOTP(ctx context.Context, s Session) (Enrolment, error) {
	s, err := p.mayAdd(ctx, p.o.Truth, s)
	if err != nil {
		return Enrolment{}, err
	}
	seed := make([]byte, seedSize)
	rand.Read(seed)
	defer clear(seed)
	state, err := p.sealState(ctx, stateEnrol, &s, seed, enrolmentFor)
	if err != nil {
		return Enrolment{}, err
	}
	return p.enrolment(s, seed, state)
}

// ReopenTOTP gives the enrolment of a state again, for a page that is shown once more after a wrong code; ErrWrongCode where it has run out.
func (p *People) ReopenTOTP(ctx context.Context, s Session, state string) (Enrolment, error) {
	s, err := p.in(ctx, p.o.Truth, s, AwaitsSetUp, SignedIn)
	if err != nil {
		return Enrolment{}, err
	}
	var seed []byte
	if _, err := p.openState(stateEnrol, &s, state, &seed); err != nil {
		return Enrolment{}, err
	}
	defer clear(seed)
	return p.enrolment(s, seed, state)
}

func (p *People) enrolment(s Session, seed []byte, state string) (Enrolment, error) {
	key, err := totp.Generate(totp.GenerateOpts{Issuer: p.o.Issuer, AccountName: s.Address, Secret: seed, Period: totpPeriod,
		Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1})
	if err != nil {
		return Enrolment{}, err
	}
	picture, err := qr(key)
	return Enrolment{Key: key.Secret(), URL: key.URL(), QR: picture, State: state}, err
}

// qr draws a key, black on white whatever the page's colours, with the white edge that readers need.
func qr(key *otp.Key) ([]byte, error) {
	const edge = 20
	var code image.Image
	var err error
	for _, size := range []int{200, 400} { // a long name has more modules than fit
		if code, err = key.Image(size, size); err == nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	inner := code.Bounds().Add(image.Pt(edge, edge))
	canvas := image.NewPaletted(image.Rect(0, 0, inner.Max.X+edge, inner.Max.Y+edge), color.Palette{color.White, color.Black})
	draw.Draw(canvas, inner, code, code.Bounds().Min, draw.Src)
	var b bytes.Buffer
	err = png.Encode(&b, canvas)
	return b.Bytes(), err
}

// AddTOTP adds the authenticator app that shows a code of the enrolment. An awaited set-up is then done. ErrWrongCode, ErrStepUp, authstore.ErrLabel,
// ErrManyFactors.
func (p *People) AddTOTP(ctx context.Context, v Visitor, s Session, state, code, label string) (Token, Session, error) {
	s, err := p.mayAdd(ctx, p.o.Truth, s)
	if err != nil {
		return "", Session{}, err
	}
	var seed []byte
	once, err := p.openState(stateEnrol, &s, state, &seed)
	if err != nil {
		return "", Session{}, err
	}
	defer clear(seed)
	_, _, code = p.shape(code)
	right, err := p.steps(seed, code)
	if err != nil {
		return "", Session{}, err
	}
	if len(right) == 0 {
		return "", Session{}, ErrWrongCode
	}
	now := p.now()
	f := StoredFactor{Factor: Factor{Kind: TOTP, Label: label, Created: now, LastUsed: now}, Step: right[len(right)-1]}
	return p.add(ctx, v, s, once, f, seed)
}
