package identity

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"postern/authstore"
)

// Bounds of a tie's names, in bytes (OpenID Connect Core section 2 has 255 for a subject).
const (
	maxIssuer  = 2000
	maxSubject = 255
)

// CheckTie says why nothing can be bound to such a person.
func CheckTie(issuer, subject string) error {
	switch {
	case issuer == "" || subject == "":
		return errors.New("an issuer needs a subject, and a subject an issuer")
	case len(issuer) > maxIssuer || len(subject) > maxSubject:
		return errors.New("the issuer or the subject is too long")
	case !isLine(issuer) || !isLine(subject):
		return errors.New("the issuer or the subject holds a control character")
	}
	return nil
}

func isLine(s string) bool { return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl) }

// Bind binds an account to a person at another server in an administrator's name. A tie to another person there has to be taken back first. All
// its sessions at the portal end, for they may be somebody else's; those that were signed in are counted. ErrTied, authstore.ErrNotFound,
// *authstore.Unfit.
func Bind(ctx context.Context, truth Truth, who authstore.Actor, id authstore.AccountID, issuer, subject string) (ended int, err error) {
	if err := CheckTie(issuer, subject); err != nil {
		return 0, &authstore.Unfit{Err: err}
	}
	_, err = truth.Act(ctx, who, id, func(tx Tx) error {
		of, err := tx.Person(ctx)
		if err != nil {
			return err
		}
		if was, bound := of.tied(issuer); bound {
			if was.Subject != subject {
				return ErrTied
			}
			return nil
		}
		if err := tx.SetTie(ctx, Tie{Issuer: issuer, Subject: subject, Seen: time.Now()}); err != nil {
			return err
		}
		if ended, err = tx.EndSessions(ctx, 0); err != nil {
			return err
		}
		return tx.Event(ctx, "tie.made", issuer)
	})
	return ended, err
}

// Unbind takes back what binds an account to an issuer's person; its sessions end as with Bind. authstore.ErrNotFound.
func Unbind(ctx context.Context, truth Truth, who authstore.Actor, id authstore.AccountID, issuer string) (ended int, err error) {
	_, err = truth.Act(ctx, who, id, func(tx Tx) error {
		of, err := tx.Person(ctx)
		if err != nil {
			return err
		}
		if _, bound := of.tied(issuer); !bound {
			return authstore.ErrNotFound
		}
		if err := tx.RemoveTie(ctx, issuer); err != nil {
			return err
		}
		if ended, err = tx.EndSessions(ctx, 0); err != nil {
			return err
		}
		return tx.Event(ctx, "tie.removed", issuer)
	})
	return ended, err
}
