package directory

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"

	"postern/authstore"
	"postern/internal/testlab"
	"postern/protocols"
)

// message is what a server sends, taken apart as far as faults need it.
type message struct {
	id   []byte // with its tag
	op   byte   // bindResponse, entry, done
	body []byte
}

const (
	bindResponse = 0x61
	entry        = 0x64
	done         = 0x65
	reference    = 0x73
)

func tlv(tag byte, body []byte) []byte {
	return append([]byte{tag, 0x83, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body...)
}

func (m message) bytes() []byte { return tlv(0x30, append(bytes.Clone(m.id), tlv(m.op, m.body)...)) }

// readTLV reads one element of a definite length.
func readTLV(r io.ByteReader, rest io.Reader) (tag byte, body []byte, err error) {
	if tag, err = r.ReadByte(); err != nil {
		return 0, nil, err
	}
	b, err := r.ReadByte()
	n := int(b)
	if b >= 0x80 {
		n = 0
		for range b & 0x7f {
			if b, err = r.ReadByte(); err != nil {
				return 0, nil, err
			}
			n = n<<8 | int(b)
		}
	}
	if err != nil {
		return 0, nil, err
	}
	body = make([]byte, n)
	_, err = io.ReadFull(rest, body)
	return tag, body, err
}

func readMessage(r *bufio.Reader) (m message, err error) {
	_, content, err := readTLV(r, r)
	if err != nil {
		return m, err
	}
	in := bytes.NewReader(content)
	tag, id, err := readTLV(in, in)
	if err != nil {
		return m, err
	}
	m.id = append([]byte{tag, byte(len(id))}, id...)
	m.op, m.body, err = readTLV(in, in)
	return m, err
}

// with is a done, or a bind's answer, with another result.
func (m message) with(code byte) message {
	m.body = bytes.Clone(m.body)
	m.body[2] = code
	return m
}

var errCut = errors.New("the server hangs up")

// fault turns one message of a server into others; nil: it goes through. errCut ends the connection behind them.
type fault func(n int, m message) ([]byte, error)

// faulty relays to a slapd, and does to what it says what a fault does.
func faulty(t *testing.T, s *testlab.SlapdServer, now *atomic.Pointer[fault]) string {
	return answering(t, func(client net.Conn) {
		server, err := net.Dial("tcp", s.Addr)
		if err != nil {
			return
		}
		defer server.Close()
		go func() {
			io.Copy(server, client)
			server.Close()
		}()
		f := *now.Load()
		r := bufio.NewReader(server)
		for n := 0; ; n++ {
			m, err := readMessage(r)
			if err != nil {
				return
			}
			out, err := f(n, m)
			if out == nil && err == nil {
				out = m.bytes()
			}
			if _, werr := client.Write(out); err != nil || werr != nil {
				return
			}
		}
	})
}

// refusals are results of a search or a bind that say nothing of anybody: all that are not success, but for what is none of an answer's.
func aRefusal(r *rand.Rand) byte {
	for {
		if code := byte(1 + r.IntN(123)); code != 14 { // saslBindInProgress goes on
			return code
		}
	}
}

// aFault is one of all kinds. accounts is how many are looked at.
func aFault(r *rand.Rand, accounts int) (string, fault) {
	at := r.IntN(accounts + 4) // bind, base, its done, entries, their done
	isLast := func(m message) bool { return m.op == done || m.op == bindResponse }
	switch r.IntN(16) {
	case 0:
		return "hangs up", func(n int, m message) ([]byte, error) {
			if n == at {
				return nil, errCut
			}
			return nil, nil
		}
	case 1:
		cut := r.Float64()
		return "half a message", func(n int, m message) ([]byte, error) {
			if n == at {
				b := m.bytes()
				return b[:int(cut*float64(len(b)))], errCut
			}
			return nil, nil
		}
	case 2:
		rubbish := make([]byte, 1+r.IntN(300))
		for i := range rubbish {
			rubbish[i] = byte(r.Uint32())
		}
		return "rubbish", func(n int, m message) ([]byte, error) {
			if n == at {
				return rubbish, errCut
			}
			return nil, nil
		}
	case 3, 4, 5:
		code, which, seen := aRefusal(r), r.IntN(3), 0
		return fmt.Sprintf("result %d of answer %d", code, which), func(n int, m message) ([]byte, error) {
			if !isLast(m) {
				return nil, nil
			}
			if seen++; seen == which+1 {
				return m.with(code).bytes(), nil
			}
			return nil, nil
		}
	case 6:
		keep, code := r.IntN(accounts), []byte{3, 4, 11, 51, 80}[r.IntN(5)]
		entries := 0
		return fmt.Sprintf("%d entries and result %d", keep, code), func(n int, m message) ([]byte, error) {
			switch {
			case m.op == entry && n > 2:
				if entries++; entries > keep {
					return []byte{}, nil
				}
			case m.op == done && n > 2:
				return m.with(code).bytes(), nil
			}
			return nil, nil
		}
	case 7:
		keep := r.IntN(accounts - accounts/10 - 1)
		entries := 0
		return fmt.Sprintf("%d entries and success", keep), func(n int, m message) ([]byte, error) {
			if m.op == entry && n > 2 {
				if entries++; entries > keep {
					return []byte{}, nil
				}
			}
			return nil, nil
		}
	case 8:
		ref := message{op: reference, body: tlv(0x04, []byte("ldap://other.example.test/ou=people,dc=example,dc=test"))}
		keep := r.IntN(accounts)
		entries := 0
		return fmt.Sprintf("%d entries and a reference", keep), func(n int, m message) ([]byte, error) {
			if m.op == entry && n > 2 {
				if entries++; entries > keep {
					ref.id = m.id
					return ref.bytes(), nil
				}
			}
			return nil, nil
		}
	case 9:
		return "an entry twice", func(n int, m message) ([]byte, error) {
			if m.op == entry && n == 3 {
				return append(m.bytes(), m.bytes()...), nil
			}
			return nil, nil
		}
	case 10:
		return "entries without what was asked for", func(n int, m message) ([]byte, error) {
			if m.op == entry && n >= 3 {
				m.body = bytes.ReplaceAll(m.body, []byte("entryUUID"), []byte("entryUXID"))
				return m.bytes(), nil
			}
			return nil, nil
		}
	case 11:
		return "entries of others", func(n int, m message) ([]byte, error) {
			if m.op == entry && n >= 3 {
				i := bytes.Index(m.body, []byte("entryUUID"))
				m.body = bytes.Clone(m.body)
				m.body[i+len("entryUUID")+4] ^= 1 // behind the set's and the value's heads: a digit of the subject
				return m.bytes(), nil
			}
			return nil, nil
		}
	case 12:
		when := []string{"20200101000000X", "99991231235959Z", "20190101000000Z", "00000000000000Z"}[r.IntN(4)]
		return "odd times", func(n int, m message) ([]byte, error) {
			if m.op == entry && n >= 3 {
				m.body = bytes.ReplaceAll(m.body, []byte("20200101000000Z"), []byte(when))
				return m.bytes(), nil
			}
			return nil, nil
		}
	case 13:
		return "all changed at once", func(n int, m message) ([]byte, error) {
			if m.op == entry && n >= 3 {
				m.body = bytes.ReplaceAll(m.body, []byte("20200101000000Z"), []byte("20220101000000Z"))
				return m.bytes(), nil
			}
			return nil, nil
		}
	case 14:
		return "no base", func(n int, m message) ([]byte, error) {
			if m.op == entry {
				return []byte{}, nil
			}
			return nil, nil
		}
	}
	// a byte of the frame, or of the result, but not of what an entry says
	bit := byte(1 << r.IntN(8))
	return "a flipped bit of a head", func(n int, m message) ([]byte, error) {
		if n == at {
			b := m.bytes()
			b[at%6] ^= bit
			return b, errCut
		}
		return nil, nil
	}
}

// Ten thousand faults of all kinds suspend nobody and revoke nothing. A look sleeps for half of its time, so that several go on at once.
func TestFaultsChangeNothing(t *testing.T) {
	t.Parallel()
	const sites, accounts = 8, 20
	faults := 10_000
	if testing.Short() {
		faults = 800
	}
	s := testlab.Slapd(t, accounts)
	for site := range sites {
		t.Run(fmt.Sprint(site), func(t *testing.T) {
			t.Parallel()
			suffer(t, s, faults/sites, accounts)
		})
	}
}

func suffer(t *testing.T, s *testlab.SlapdServer, faults, accounts int) {
	var now atomic.Pointer[fault]
	none := fault(func(int, message) ([]byte, error) { return nil, nil })
	now.Store(&none)
	o := options(s)
	o.Route = &protocols.Route{Network: "tcp", Address: faulty(t, s, &now)}
	p := newPlace(t, directory(t, o))
	var ids []authstore.AccountID
	for i := range accounts {
		ids = append(ids, p.account(fmt.Sprintf("u%d@example.test", i)).ID)
	}
	if r := p.look(LookOptions{}); r.Problem != "" || r.Present != accounts {
		t.Fatalf("without faults: %+v", r)
	}
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	outcomes := make(map[string]int)
	p.Observe = func(outcome string) { outcomes[outcome]++ }
	for i := range faults {
		name, f := aFault(r, accounts)
		now.Store(&f)
		report := p.look(LookOptions{})
		if (report.Lost > 0 || report.Changed > 0) && !report.Held && report.Problem == "" {
			t.Fatalf("seed %d, fault %d: %s: %+v", seed, i, name, report)
		}
	}
	now.Store(&none)
	if r := p.look(LookOptions{}); r.Problem != "" || r.Present != accounts || r.Lost+r.Back+r.Changed != 0 {
		t.Errorf("seed %d: afterwards %+v", seed, r)
	}
	for i, id := range ids {
		p.is(fmt.Sprint("seed ", seed), map[string]string{fmt.Sprintf("u%d@example.test", i): "active 1"})
		if got := p.history(id); got != nil {
			t.Errorf("seed %d: history %q", seed, got)
		}
	}
	if outcomes["failed"] < faults/2 || outcomes["held"] < faults/20 {
		t.Errorf("outcomes %v: the faults were none", outcomes)
	}
}
