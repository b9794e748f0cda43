package authstore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"postern/authstore/secret"
)

// ErrWrongKeys says that a key file does not belong to the database.
var ErrWrongKeys = errors.New("the key file does not belong to this database; restore the one that was used with it. Nothing was changed")

// checkKeys compares a keyring with the check values in the database, and only if all is well adds those of new keys.
func checkKeys(ctx context.Context, t Truth, keys *secret.Keyring) error {
	use, err := t.KeyUse(ctx)
	if err != nil {
		return fmt.Errorf("check the keys: %w", err)
	}
	for n, rows := range use {
		if !slices.Contains(keys.Numbers(), n) {
			return fmt.Errorf("%d app passwords or stored credentials need key %d, which the key file lacks: %w", rows, n, ErrWrongKeys)
		}
	}
	for _, n := range keys.Numbers() {
		stored, err := t.Meta(ctx, checkName(n))
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("check the keys: %w", err)
		}
		if err := checkKey(keys, n, stored); err != nil {
			return err
		}
	}
	for _, n := range keys.Numbers() {
		value, err := keys.Check(n)
		if err != nil {
			return err
		}
		stored, err := t.SetMeta(ctx, checkName(n), value)
		if err != nil {
			return fmt.Errorf("check the keys: %w", err)
		}
		if err := checkKey(keys, n, stored); err != nil { // somebody else was first
			return err
		}
	}
	return nil
}

func checkName(n uint32) string { return fmt.Sprintf("key %d", n) }

func checkKey(keys *secret.Keyring, n uint32, stored []byte) error {
	value, err := keys.Check(n)
	if err != nil {
		return err
	}
	if !secret.Equal(stored, value) {
		return fmt.Errorf("key %d: %w", n, ErrWrongKeys)
	}
	return nil
}

// usableKey is the newest of our keys that every node has, so that whatever is made with it can be read everywhere.
func usableKey(ours []uint32, nodes []Node) uint32 {
	for _, n := range slices.Backward(ours) {
		if !slices.ContainsFunc(nodes, func(node Node) bool { return !slices.Contains(node.Keys, n) }) {
			return n
		}
	}
	return ours[0]
}

// usableKey is the newest of the root keys that every node has.
func (a *Accounts) usableKey(ctx context.Context, keys *secret.Keyring) (uint32, error) {
	nodes, err := a.o.Truth.Nodes(ctx)
	if err != nil {
		return 0, fmt.Errorf("list the nodes: %w", err)
	}
	return usableKey(keys.Numbers(), nodes), nil
}

// UsableKey is the number of the key that new secrets are sealed with: the newest that every node has.
func (a *Accounts) UsableKey(ctx context.Context) (uint32, error) {
	return a.usableKey(ctx, a.keys.Load())
}

// Reseal moves all that is sealed at rest under a root key to the newest that every node has, so that the old one can be retired. Where
// that is the same key nothing is moved. It counts the rows.
func (a *Accounts) Reseal(ctx context.Context, from uint32) (int, error) {
	keys := a.keys.Load()
	to, err := a.usableKey(ctx, keys)
	if err != nil || to == from {
		return 0, err
	}
	return a.o.Truth.Reseal(ctx, from, to, func(place string, sealed []byte) ([]byte, error) {
		plain, err := keys.OpenRow(sealed, place)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", place, err)
		}
		defer clear(plain)
		return keys.SealRow(to, plain, place)
	})
}

// KeyStatus tells of one root key.
type KeyStatus struct {
	Number uint32 `json:"number"`
	Rows   int    `json:"rows"`  // app passwords, stored credentials, tokens, primary passwords and second factors that need it
	Nodes  int    `json:"nodes"` // running nodes that have it
	New    bool   `json:"new"`   // new app passwords are made with it
}

// Keys lists the root keys.
func (a *Accounts) Keys(ctx context.Context) ([]KeyStatus, error) {
	use, err := a.o.Truth.KeyUse(ctx)
	if err != nil {
		return nil, err
	}
	nodes, err := a.o.Truth.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	var list []KeyStatus
	usable := usableKey(a.keys.Load().Numbers(), nodes)
	for _, n := range a.keys.Load().Numbers() {
		k := KeyStatus{Number: n, Rows: use[n], New: n == usable}
		for _, node := range nodes {
			if slices.Contains(node.Keys, n) {
				k.Nodes++
			}
		}
		list = append(list, k)
	}
	return list, nil
}

// CanRetire says why a root key is still needed; nil: it can go. Cached snapshots that hold a digest under it are gone by then,
// for moving a row to a newer key is a change.
func (a *Accounts) CanRetire(ctx context.Context, n uint32) error {
	list, err := a.Keys(ctx)
	if err != nil {
		return err
	}
	for _, k := range list {
		switch {
		case k.Number != n:
		case k.New:
			return fmt.Errorf("key %d makes new app passwords; add a newer one first and reload every gateway", n)
		case k.Rows > 0:
			return fmt.Errorf("%d app passwords or stored credentials still need key %d; an app password moves to the newest key when it is used next and is forgotten 90 days after it ends, all else is moved by \"postern key retire\"", k.Rows, n)
		default:
			return nil
		}
	}
	return fmt.Errorf("there is no key %d", n)
}
