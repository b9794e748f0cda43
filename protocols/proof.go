package protocols

import (
	"context"
	"errors"
	"fmt"
	"net"

	"postern/protocols/saslauth"
)

// Errors of backends that can't be logged in to.
var (
	ErrNoPlain  = errors.New("it does not offer the mechanism PLAIN")
	ErrNoBearer = errors.New("it offers neither OAUTHBEARER nor XOAUTH2, and the gateway has a token for it")
)

// errAsksOn says that a backend asks for more than its mechanism has.
var errAsksOn = errors.New("it asks for more than the mechanism has")

// Mechanism is the one of SASL that a backend is logged in to with. offers tells whether the backend offers one. A token goes by the standard's where it
// can: Google takes both, Microsoft XOAUTH2 only. The errors are ErrNoPlain and ErrNoBearer.
func (r *Route) Mechanism(offers func(mechanism string) bool) (string, error) {
	switch {
	case !r.Bearer && offers(saslauth.Plain):
		return saslauth.Plain, nil
	case !r.Bearer:
		return "", ErrNoPlain
	case offers(saslauth.OAuthBearer):
		return saslauth.OAuthBearer, nil
	case offers(saslauth.XOAuth2):
		return saslauth.XOAuth2, nil
	}
	return "", ErrNoBearer
}

// Proof is what the gateway says to log in to a backend. The mechanisms it may have send all in one message.
type Proof struct {
	Mechanism string

	response []byte // encoded
	sent     bool   // with the command; then it may still be asked for, by a backend that takes no initial response
	asked    bool   // it was asked for
	ended    bool   // the answer to a refusing challenge was given
	status   string // in that challenge
	refused  func()
}

// Prove opens the credential and makes of it what the mechanism sends. The caller calls End.
func (r *Route) Prove(ctx context.Context, mechanism string) (*Proof, error) {
	c, err := r.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Clear()
	p := &Proof{Mechanism: mechanism, refused: c.Refused}
	switch mechanism {
	case saslauth.OAuthBearer:
		host, port, _ := net.SplitHostPort(r.Address) // of a socket there are none
		p.response, err = saslauth.AppendOAuthBearer(nil, c.Authcid, host, port, c.Password)
	case saslauth.XOAuth2:
		p.response, err = saslauth.AppendXOAuth2(nil, c.Authcid, c.Password)
	default:
		p.response, err = saslauth.AppendPlain(nil, c.Authzid, c.Authcid, c.Password)
	}
	if err != nil {
		return nil, fmt.Errorf("the credential can't be sent by %s: %w", mechanism, err)
	}
	return p, nil
}

// Initial is the response as it goes with the command that names the mechanism; nil where a line of at most limit bytes, in which other words take
// some, has no place for it: the backend will ask for it. limit 0: it has to. It is cleared by End.
func (p *Proof) Initial(words, limit int) []byte {
	if words+len(p.response) > limit {
		return nil
	}
	p.sent = true
	return p.response
}

// Answer is the line that answers a challenge, which stands as on the wire, without what comes before it: the response where it is asked for, or else,
// where a token is refused, what ends that.
func (p *Proof) Answer(challenge []byte) ([]byte, error) {
	switch {
	case !p.asked && (!p.sent || len(challenge) == 0 || p.Mechanism == saslauth.Plain): // which some ask for in words
		p.asked = true
		return p.response, nil
	case p.Mechanism != saslauth.Plain && !p.ended:
		p.ended = true
		p.status = saslauth.RefusalStatus(challenge)
		return []byte(saslauth.RefusalEnd(p.Mechanism)), nil
	}
	return nil, errAsksOn
}

// Refusal is the error of an answer by which a backend refuses the credential, unless it said before that it only could not look at it: Dovecot 2.4 refuses
// every token while its provider is down, with a status that says so.
func (p *Proof) Refusal(answer error) error {
	switch s := p.status; {
	case s == "internal_failure", s == "server_error", s == "temporarily_unavailable", len(s) == len("500") && s[0] == '5':
		return answer
	}
	return fmt.Errorf("%w: %w", ErrCredential, answer)
}

// End clears the response and tells whoever gave the credential when err says that the backend refused it. It returns err with what else the backend
// said of that.
func (p *Proof) End(err error) error {
	clear(p.response)
	if p.refused != nil && errors.Is(err, ErrCredential) {
		p.refused()
	}
	if err != nil && p.status != "" {
		return fmt.Errorf("%w; the token's status is %q", err, p.status)
	}
	return err
}
