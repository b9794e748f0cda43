package authstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// AccountImport is what an import does to one account. It only ever adds.
type AccountImport struct {
	Account     AccountID // zero: it is made, with Address as its first name
	Address     string    // canonical; of one that is made
	PublicID    string    // likewise
	Aliases     []string  // canonical; those that it gets
	BackendName string    // empty: it stays as it is
	// Issuer and Subject bind it to a person at another server; empty: nothing does.
	Issuer, Subject string
}

// ImportError says which account of an import could not be written, and so that none of those was that were to be written with it.
type ImportError struct {
	Index int
	Err   error
}

func (e *ImportError) Error() string { return e.Err.Error() }
func (e *ImportError) Unwrap() error { return e.Err }

// importBatch is how many accounts are written in one transaction: others wait for the write lock meanwhile.
const importBatch = 200

// Import writes accounts, batch by batch: done says how many were written when it fails, which are the first of them. It waits for the nodes
// once.
func (a *Accounts) Import(ctx context.Context, list []AccountImport) (done int, err error) {
	var last Change
	for done < len(list) {
		batch := list[done:min(done+importBatch, len(list))]
		for i := range batch {
			if batch[i].Account == 0 {
				batch[i].PublicID = publicID()
			}
		}
		c, err := a.o.Truth.Import(ctx, a.o.Actor, batch)
		if err != nil {
			if e, ok := errors.AsType[*ImportError](err); ok {
				e.Index += done
			}
			if last.Sequence != 0 {
				a.confirm(ctx, last, nil)
			}
			return done, err
		}
		last, done = c, done+len(batch)
	}
	if last.Sequence != 0 {
		a.confirm(ctx, last, nil)
	}
	return done, nil
}

// NewName is the canonical form of a name that an account is to get, as Add and AddAlias have it.
func (a *Accounts) NewName(typed string) (string, error) {
	return a.o.Names.forCreation(typed)
}

// Canonical is the one form of a name as typed, whoever has it.
func (a *Accounts) Canonical(typed string) (string, error) { return a.o.Names.Canonical(typed) }

// CheckBackendName says why a name can't be one towards backends.
func CheckBackendName(name string) error {
	if len(name) > maxName || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return fmt.Errorf("the backend name has more than %d bytes, or holds a control character", maxName)
	}
	return nil
}
