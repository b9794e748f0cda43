package secret

import (
	"bytes"
	"cmp"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Errors of the keyring.
var (
	ErrUnknownKey = errors.New("the root key with that number is not in the key file")
	ErrNotOpened  = errors.New("a sealed value does not open: another key, another place, or altered")
)

// rootSize is the size of a root key, in bytes.
const rootSize = 32

// Purposes separate the keys that are derived from one root key (RFC 5869). They stand in derived keys for ever.
const (
	purposePepper = "postern app password digest v1"
	purposeCache  = "postern cache seal v1"
	purposeName   = "postern cache name v1"
	purposeRow    = "postern row seal v1"
	purposeCheck  = "postern key check v1"
	purposeTicket = "postern tls ticket v1 " // and the hour's number, counted since 1970
	purposeMAC    = "postern mac v1 "        // and what MAC's caller names
)

// Keyring holds the numbered root keys. It is immutable and safe for concurrent use; Add and Without make new ones.
type Keyring struct {
	keys []*key // by number, at least one
}

type key struct {
	number uint32
	root   []byte
	macs   sync.Pool // of *mac: HMAC states under the pepper
	pepper []byte
	cache  cipher.AEAD
	row    cipher.AEAD
	name   []byte
}

type mac struct {
	hash.Hash
	sum [sha256.Size]byte
	in  [8 + Size]byte
}

// Format hides the keys from every verb.
func (k *Keyring) Format(f fmt.State, _ rune) { io.WriteString(f, "[keyring]") }

// NewKeyring makes a keyring with one new root key, number 1.
func NewKeyring() *Keyring {
	k, err := build(map[uint32][]byte{1: newRoot()})
	if err != nil {
		panic("secret: " + err.Error()) // a new key is well-formed
	}
	return k
}

func newRoot() []byte {
	root := make([]byte, rootSize)
	rand.Read(root)
	return root
}

// ParseKeyring reads a key file: one key a line, its number and 32 bytes in base64; blank lines and # comments are skipped.
func ParseKeyring(text []byte) (*Keyring, error) {
	roots := make(map[uint32][]byte)
	for i, line := range bytes.Split(text, []byte("\n")) {
		line, _, _ = bytes.Cut(line, []byte("#"))
		fields := strings.Fields(string(line))
		if len(fields) == 0 {
			continue
		}
		if len(fields) != 2 {
			return nil, fmt.Errorf("line %d: want a key's number and its base64", i+1)
		}
		number, err := strconv.ParseUint(fields[0], 10, 32)
		if err != nil || number == 0 {
			return nil, fmt.Errorf("line %d: the key's number is not a whole number above 0", i+1)
		}
		root, err := base64.StdEncoding.DecodeString(fields[1])
		if err != nil || len(root) != rootSize {
			return nil, fmt.Errorf("line %d: key %d is not base64 of %d bytes", i+1, number, rootSize)
		}
		if roots[uint32(number)] != nil {
			return nil, fmt.Errorf("line %d: key %d stands there twice", i+1, number)
		}
		roots[uint32(number)] = root
	}
	if len(roots) == 0 {
		return nil, errors.New("it holds no key")
	}
	return build(roots)
}

// Text gives the key file. It holds the keys themselves.
func (k *Keyring) Text() []byte {
	b := []byte("# Postern's root keys. Whoever has this file and the database can check guesses and read stored backend passwords.\n" +
		"# Keep a copy apart from the database's copies: without it no app password works.\n")
	for _, key := range k.keys {
		b = strconv.AppendUint(b, uint64(key.number), 10)
		b = append(b, ' ')
		b = base64.StdEncoding.AppendEncode(b, key.root)
		b = append(b, '\n')
	}
	return b
}

func build(roots map[uint32][]byte) (*Keyring, error) {
	k := &Keyring{}
	for number, root := range roots {
		key := &key{number: number, root: root}
		var err error
		if key.pepper, err = hkdf.Key(sha256.New, root, nil, purposePepper, 32); err != nil {
			return nil, err
		}
		if key.name, err = hkdf.Key(sha256.New, root, nil, purposeName, 32); err != nil {
			return nil, err
		}
		if key.cache, err = newAEAD(root, purposeCache); err != nil {
			return nil, err
		}
		if key.row, err = newAEAD(root, purposeRow); err != nil {
			return nil, err
		}
		key.macs.New = func() any { return &mac{Hash: hmac.New(sha256.New, key.pepper)} }
		k.keys = append(k.keys, key)
	}
	slices.SortFunc(k.keys, func(a, b *key) int { return cmp.Compare(a.number, b.number) })
	return k, nil
}

func newAEAD(root []byte, purpose string) (cipher.AEAD, error) {
	derived, err := hkdf.Key(sha256.New, root, nil, purpose, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// Add returns a keyring with one more, newest, key.
func (k *Keyring) Add() (*Keyring, error) {
	roots := k.roots()
	roots[k.Newest()+1] = newRoot()
	return build(roots)
}

// Without returns a keyring without key n.
func (k *Keyring) Without(n uint32) (*Keyring, error) {
	if k.find(n) == nil {
		return nil, ErrUnknownKey
	}
	if len(k.keys) == 1 {
		return nil, errors.New("it is the only key")
	}
	roots := k.roots()
	delete(roots, n)
	return build(roots)
}

func (k *Keyring) roots() map[uint32][]byte {
	roots := make(map[uint32][]byte)
	for _, key := range k.keys {
		roots[key.number] = key.root
	}
	return roots
}

// Numbers lists the keys' numbers, oldest first.
func (k *Keyring) Numbers() []uint32 {
	numbers := make([]uint32, len(k.keys))
	for i, key := range k.keys {
		numbers[i] = key.number
	}
	return numbers
}

// Newest is the highest number.
func (k *Keyring) Newest() uint32 { return k.keys[len(k.keys)-1].number }

func (k *Keyring) find(n uint32) *key {
	for _, key := range k.keys {
		if key.number == n {
			return key
		}
	}
	return nil
}

// Digest is HMAC-SHA-256 under key n's pepper, over account id and app password. It allocates nothing.
func (k *Keyring) Digest(n uint32, account int64, p *Password) ([sha256.Size]byte, error) {
	key := k.find(n)
	if key == nil {
		return [sha256.Size]byte{}, ErrUnknownKey
	}
	m := key.macs.Get().(*mac)
	m.Reset()
	binary.BigEndian.PutUint64(m.in[:8], uint64(account))
	copy(m.in[8:], p[:])
	m.Write(m.in[:])
	m.Sum(m.sum[:0])
	sum := m.sum
	clear(m.in[:])
	clear(m.sum[:])
	m.Reset()
	key.macs.Put(m)
	return sum, nil
}

// Equal compares in constant time.
func Equal(a, b []byte) bool { return hmac.Equal(a, b) }

// Check is a value that tells one key from another without telling the key; it stands in the database.
func (k *Keyring) Check(n uint32) ([]byte, error) {
	key := k.find(n)
	if key == nil {
		return nil, ErrUnknownKey
	}
	return hkdf.Key(sha256.New, key.root, nil, purposeCheck, 16)
}

// Name is the opaque name under which the cache keeps something: a PRF of the parts under key n.
func (k *Keyring) Name(n uint32, parts ...string) (string, error) {
	key := k.find(n)
	if key == nil {
		return "", ErrUnknownKey
	}
	m := hmac.New(sha256.New, key.name)
	for _, p := range parts {
		m.Write(binary.AppendUvarint(nil, uint64(len(p))))
		io.WriteString(m, p)
	}
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil)[:18]), nil
}

// MAC is HMAC-SHA-256 over the parts, under a key of key n's that is the purpose's own. It goes into what others keep for us (cookies)
// and into names that tell nothing.
func (k *Keyring) MAC(n uint32, purpose string, parts ...string) ([]byte, error) {
	key := k.find(n)
	if key == nil {
		return nil, ErrUnknownKey
	}
	derived, err := hkdf.Key(sha256.New, key.root, nil, purposeMAC+purpose, 32)
	if err != nil {
		return nil, err
	}
	m := hmac.New(sha256.New, derived)
	for _, p := range parts {
		m.Write(binary.AppendUvarint(nil, uint64(len(p))))
		io.WriteString(m, p)
	}
	return m.Sum(nil), nil
}

// SealCache seals a cache value with key n, bound to its place.
func (k *Keyring) SealCache(n uint32, plain []byte, place string) ([]byte, error) {
	return k.seal(n, (*key).cacheAEAD, plain, place)
}

// OpenCache opens what SealCache sealed.
func (k *Keyring) OpenCache(sealed []byte, place string) ([]byte, error) {
	return k.open((*key).cacheAEAD, sealed, place)
}

// SealRow seals a secret at rest with key n, bound to its place: table, row and account.
func (k *Keyring) SealRow(n uint32, plain []byte, place string) ([]byte, error) {
	return k.seal(n, (*key).rowAEAD, plain, place)
}

// OpenRow opens what SealRow sealed.
func (k *Keyring) OpenRow(sealed []byte, place string) ([]byte, error) {
	return k.open((*key).rowAEAD, sealed, place)
}

func (k *key) cacheAEAD() cipher.AEAD { return k.cache }
func (k *key) rowAEAD() cipher.AEAD   { return k.row }

// A sealed value is the key's number, four bytes, and what the AEAD made (its nonce leads).
func (k *Keyring) seal(n uint32, aead func(*key) cipher.AEAD, plain []byte, place string) ([]byte, error) {
	key := k.find(n)
	if key == nil {
		return nil, ErrUnknownKey
	}
	a := aead(key)
	out := make([]byte, 4, 4+len(plain)+a.Overhead())
	binary.BigEndian.PutUint32(out, n)
	return a.Seal(out, nil, plain, []byte(place)), nil
}

func (k *Keyring) open(aead func(*key) cipher.AEAD, sealed []byte, place string) ([]byte, error) {
	if len(sealed) < 4 {
		return nil, ErrNotOpened
	}
	key := k.find(binary.BigEndian.Uint32(sealed))
	if key == nil {
		return nil, ErrUnknownKey
	}
	plain, err := aead(key).Open(nil, nil, sealed[4:], []byte(place))
	if err != nil {
		return nil, ErrNotOpened
	}
	return plain, nil
}
