package identity

import (
	"context"
	"errors"

	"postern/authstore"
)

// People is who may sign in, and how. Goroutines may share it.
type People struct{ o Options }

// Truth is what the store keeps of people.
type Truth interface{}

// New makes a People.
func New(o Options) (*People, error) { return &People{o}, nil }

var errTodo = errors.New("not yet")

// SignIn checks a primary password and begins a session: AwaitsFactor, or AwaitsSetUp where there is no second factor yet. ErrWrong,
// *TooMany, ErrUnavailable. Names that nobody has cost the same time.
func (p *People) SignIn(ctx context.Context, v Visitor, address string, password []byte) (Token, Session, error) {
	return "", Session{}, errTodo
}

// Device is the cookie by which a browser is known at the next sign-in, for v.Device.
func (p *People) Device(s Session) string { return "" }

// Session finds who is signed in with a token, and notes that it was seen; ErrNoSession.
func (p *People) Session(ctx context.Context, v Visitor, t Token) (Session, error) {
	return Session{}, errTodo
}

// Fresh reports whether the session gave a second factor within FreshFor.
func (p *People) Fresh(s Session) bool { return false }

// SignOut ends a session.
func (p *People) SignOut(ctx context.Context, v Visitor, s Session) error { return errTodo }

// Sessions lists the account's sessions that are signed in, the latest first.
func (p *People) Sessions(ctx context.Context, s Session) ([]Session, error) { return nil, errTodo }

// EndSession ends another session of the account; ErrStepUp, authstore.ErrNotFound.
func (p *People) EndSession(ctx context.Context, v Visitor, s Session, id SessionID) error {
	return errTodo
}

// EndOthers ends all the account's sessions but this one; ErrStepUp.
func (p *People) EndOthers(ctx context.Context, v Visitor, s Session) error { return errTodo }

// GiveCode takes a TOTP or a recovery code, told apart by their shapes, for a session that awaits its factor or needs a fresh one. The
// token that it returns takes the place of the old one. ErrWrongCode, *TooMany.
func (p *People) GiveCode(ctx context.Context, v Visitor, s Session, code string) (Token, Session, error) {
	return "", Session{}, errTodo
}

// Ask begins a WebAuthn dialogue that proves a factor: of a session's account, or with nil of whoever has a passkey for this site.
func (p *People) Ask(ctx context.Context, s *Session) (Ceremony, error) { return Ceremony{}, errTodo }

// GivePasskey takes the browser's answer (JSON) to what Ask asked, for the same session, or nil. The token takes the place of the old one.
// ErrWrongCode, *TooMany.
func (p *People) GivePasskey(ctx context.Context, v Visitor, s *Session, state string, answer []byte) (Token, Session, error) {
	return "", Session{}, errTodo
}

// Factors lists the account's second factors.
func (p *People) Factors(ctx context.Context, s Session) (Factors, error) { return Factors{}, errTodo }

// EnrolTOTP makes a seed for a new authenticator app. Nothing is kept before AddTOTP.
func (p *People) EnrolTOTP(ctx context.Context, s Session) (Enrolment, error) {
	return Enrolment{}, errTodo
}

// ReopenTOTP gives the enrolment of a state again, for a page that is shown once more after a wrong code; ErrWrongCode where it has run out.
func (p *People) ReopenTOTP(ctx context.Context, s Session, state string) (Enrolment, error) {
	return Enrolment{}, errTodo
}

// AddTOTP adds the authenticator app that shows a code of the enrolment. An awaited set-up is then done. ErrWrongCode, ErrStepUp.
func (p *People) AddTOTP(ctx context.Context, v Visitor, s Session, state, code, label string) (Token, Session, error) {
	return "", Session{}, errTodo
}

// AskNew begins the WebAuthn dialogue that makes a passkey; ErrStepUp.
func (p *People) AskNew(ctx context.Context, s Session) (Ceremony, error) { return Ceremony{}, errTodo }

// AddPasskey adds the passkey that the browser made; see AddTOTP.
func (p *People) AddPasskey(ctx context.Context, v Visitor, s Session, state string, answer []byte, label string) (Token, Session, error) {
	return "", Session{}, errTodo
}

// RenameFactor gives a factor another label.
func (p *People) RenameFactor(ctx context.Context, v Visitor, s Session, id FactorID, label string) error {
	return errTodo
}

// RemoveFactor removes a second factor; ErrStepUp, ErrLastFactor.
func (p *People) RemoveFactor(ctx context.Context, v Visitor, s Session, id FactorID) error {
	return errTodo
}

// RenewRecoveryCodes makes ten recovery codes in place of those there were. They are shown once; ErrStepUp.
func (p *People) RenewRecoveryCodes(ctx context.Context, v Visitor, s Session) ([]string, error) {
	return nil, errTodo
}

// KeepsPrimary reports whether primary passwords are kept here and can be changed.
func (p *People) KeepsPrimary() bool { return p.o.Checker == nil }

// ChangePrimary changes the primary password: all app passwords and all other sessions end with it, in one transaction. ErrStepUp, ErrWrong,
// *TooMany, *Weak, ErrForeignPrimary.
func (p *People) ChangePrimary(ctx context.Context, v Visitor, s Session, old, new []byte) (Token, Session, authstore.Confirmation, error) {
	return "", Session{}, authstore.Confirmation{}, errTodo
}

// Strength says how good a new primary password is, from 0 to 4, and why it would be refused (empty: it would not).
func (p *People) Strength(address string, password []byte) (score int, w Weakness) { return 0, "" }

// SetPreferences notes the language and the time zone in which the account's notices are written.
func (p *People) SetPreferences(ctx context.Context, s Session, language, zone string) error {
	return errTodo
}

// Invite makes a link's secret for an account: the last part of SITE/invitation/SECRET. It is of use once. One that was made before is not valid any more.
func (p *People) Invite(ctx context.Context, who authstore.Actor, id authstore.AccountID, purpose Purpose) (secret string, i Invitation, err error) {
	return "", Invitation{}, errTodo
}

// Invitation reads what a link is for, without using it up; ErrNoInvitation.
func (p *People) Invitation(ctx context.Context, v Visitor, secret string) (Invitation, error) {
	return Invitation{}, errTodo
}

// Accept uses a link up: it sets the primary password, or checks the known one where the invitation does not set it, and begins a session
// that AwaitsSetUp. The link is used up by that, and what it takes the place of ends, in one transaction. ErrNoInvitation, ErrWrong, *Weak, *TooMany.
func (p *People) Accept(ctx context.Context, v Visitor, secret string, password []byte) (Token, Session, error) {
	return "", Session{}, errTodo
}
