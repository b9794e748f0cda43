package authstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// ErrMade says that the request has made an app password already, whose secret was told to whoever asked first.
type ErrMade struct{ Password PasswordID }

func (e *ErrMade) Error() string {
	return fmt.Sprintf("this was asked before, and made app password %d", e.Password)
}

// ErrNotActive says that an app password can't be changed: it is revoked, has expired, or never was.
var ErrNotActive = errors.New("the app password is not active any more")

// PasswordEdit is what can be changed of an app password. All of it is written.
type PasswordEdit struct {
	Label    string         `json:"label"`
	Expires  time.Time      `json:"expires,omitzero"`   // zero: never
	Networks []netip.Prefix `json:"networks,omitempty"` // empty: any
}

// Edited is what the detail of an event "password.edited" holds, as JSON.
type Edited struct {
	From PasswordEdit `json:"from"`
	To   PasswordEdit `json:"to"`
}

func (e Edited) String() string {
	text, err := json.Marshal(e)
	if err != nil {
		panic("authstore: " + err.Error()) // strings, prefixes, and times that came from seconds
	}
	return string(text)
}

// ParseEdited reads the detail of such an event.
func ParseEdited(detail string) (e Edited, err error) {
	err = json.Unmarshal([]byte(detail), &e)
	return e, err
}

// EditPassword changes the label, the expiry and the networks of an active app password; ErrNotActive. Once it says so without an error,
// no node accepts the app password from elsewhere; sessions from there have ended, and the others end at the new expiry.
func (a *Accounts) EditPassword(ctx context.Context, id PasswordID, e PasswordEdit) (Confirmation, error) {
	var err error
	if e.Label, err = CleanLabel(e.Label); err != nil {
		return Confirmation{}, unfit(err)
	}
	if e.Networks, err = checkNetworks(e.Networks); err != nil {
		return Confirmation{}, unfit(err)
	}
	e.Expires = e.Expires.UTC().Truncate(time.Second)
	if e.Expires.Unix() <= 0 {
		e.Expires = time.Time{}
	}
	if err := a.checkExpiry(e.Expires); err != nil {
		return Confirmation{}, unfit(err)
	}
	if err := a.keepEdit(ctx, id, &e); err != nil {
		return Confirmation{}, err
	}
	c, err := a.o.Truth.EditPassword(ctx, a.o.Actor, id, e)
	return a.confirm(ctx, c, err)
}

// keepEdit checks what is changed, and no more, against the account's policy: an app password may be older than that.
func (a *Accounts) keepEdit(ctx context.Context, id PasswordID, e *PasswordEdit) error {
	if len(*a.policies.Load()) == 0 {
		return nil
	}
	was, err := a.o.Truth.Password(ctx, id)
	if err != nil {
		return err
	}
	policy, err := a.Policy(ctx, was.Account)
	if err != nil {
		return err
	}
	if !was.Expires.Equal(e.Expires) {
		if err := policy.checkEnd(was.Created, e.Expires); err != nil {
			return err
		}
	}
	if !slices.Equal(was.Networks, e.Networks) {
		e.Networks, err = policy.checkFrom(e.Networks)
	}
	return err
}
