package authstore

import (
	"bytes"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

// fullSnapshot is as large as one may be.
func fullSnapshot() *Snapshot {
	s := &Snapshot{Sequence: 1 << 40, Account: 7, PublicID: "abcdefghij", Status: AccountPaused, Version: 12, BackendName: "alice"}
	v := Verifiable{ID: 1 << 30, Key: 3, Digest: Digest{1, 2, 3}, Scopes: ScopeMail | ScopeContactsRead, Expires: time.Unix(2e9, 0).UTC()}
	for range MaxNetworks {
		v.Networks = append(v.Networks, netip.MustParsePrefix("2001:db8::/32"))
	}
	v.Networks[0] = netip.MustParsePrefix("192.0.2.0/24")
	for i := range MaxCollections {
		v.Collections = append(v.Collections, Collection{CalendarCollection, fmt.Sprint("Zu Hause ", i)})
	}
	v.Collections[0] = Collection{ContactsCollection, EveryCollection}
	for range MaxActive {
		s.Active = append(s.Active, v)
	}
	v.Expires, v.Networks, v.Collections, v.Revoked = time.Time{}, nil, nil, true
	for range MaxEnded {
		s.Ended = append(s.Ended, v)
	}
	return s
}

func TestCodec(t *testing.T) {
	for name, snapshot := range map[string]*Snapshot{
		"full":  fullSnapshot(),
		"small": {Account: 1, Status: Active},
	} {
		c := &cached{notAfter: time.Unix(1.8e9, 0), mark: "mark", snapshot: snapshot}
		b := c.encode()
		got, err := decodeCached(b)
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, c)
		}
		for n := range len(b) {
			if _, err := decodeCached(b[:n]); err == nil {
				t.Fatalf("%s: cut to %d of %d bytes it is taken", name, n, len(b))
			}
		}
		if _, err := decodeCached(append(b, 0)); err == nil {
			t.Errorf("%s: taken with a byte more", name)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	ok := func() *cached { return &cached{mark: "m", snapshot: &Snapshot{Account: 1, Status: Active}} }
	many := fullSnapshot()
	for len(many.Active) <= MaxActive+MaxEnded {
		many.Active = append(many.Active, Verifiable{})
	}
	nobodys := ok()
	nobodys.snapshot.Account = nobody
	crowded := fullSnapshot()
	crowded.Active[0].Collections = append(crowded.Active[0].Collections, Collection{CalendarCollection, "one more"})
	strange := fullSnapshot()
	strange.Active[0].Collections[1] = Collection{"mail", "INBOX"}
	long := ok()
	long.mark = strings.Repeat("m", maxText+1)
	for name, b := range map[string][]byte{
		"empty":                              nil,
		"another version":                    append([]byte{codecVersion + 1}, ok().encode()[1:]...),
		"nobody's":                           nobodys.encode(),
		"too many":                           (&cached{snapshot: many}).encode(),
		"too long a text":                    long.encode(),
		"more collections than one may have": (&cached{snapshot: crowded}).encode(),
		"a collection of no known kind":      (&cached{snapshot: strange}).encode(),
		"endless number":                     append([]byte{codecVersion}, bytes.Repeat([]byte{0xff}, 30)...),
	} {
		if c, err := decodeCached(b); err == nil {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

// Whatever is taken is the same after another round, and no list is longer than it may be.
func FuzzDecode(f *testing.F) {
	some := fullSnapshot()
	some.Active, some.Ended = some.Active[:1], some.Ended[:1]
	some.Active[0].Networks, some.Active[0].Collections = some.Active[0].Networks[:2], some.Active[0].Collections[:2]
	f.Add((&cached{mark: "m", snapshot: some}).encode())
	f.Add([]byte{codecVersion})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeCached(b)
		if err != nil {
			return
		}
		if len(c.snapshot.Active) > MaxActive+MaxEnded || len(c.snapshot.Ended) > MaxActive+MaxEnded {
			t.Fatalf("%d active, %d ended", len(c.snapshot.Active), len(c.snapshot.Ended))
		}
		for v := range c.snapshot.all() {
			if len(v.Networks) > MaxNetworks || len(v.Collections) > MaxCollections {
				t.Fatalf("%d networks, %d collections", len(v.Networks), len(v.Collections))
			}
		}
		again, err := decodeCached(c.encode())
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Errorf("%+v is %+v after another round, %v", c, again, err)
		}
	})
}

func TestL1IsBounded(t *testing.T) {
	one := sizeOf("user0000@example.test", newFound(fullSnapshot(), stamp{}))
	c := newL1(10*one, time.Minute)
	name := func(i int) string {
		return "user" + string([]byte{byte('0' + i/100%10), byte('0' + i/10%10), byte('0' + i%10)}) + "0@example.test"
	}
	for i := range 100 {
		c.put(name(i), newFound(fullSnapshot(), stamp{}), 0)
		c.get(name(0), 0) // stays in use
	}
	if n := len(c.known.entries); n != 10 || c.known.size > 10*one {
		t.Errorf("%d snapshots in %d bytes, want 10 in %d", n, c.known.size, 10*one)
	}
	if c.get(name(0), 0) == nil || c.get(name(99), 0) == nil || c.get(name(50), 0) != nil {
		t.Error("what was used last is not what stays")
	}
	for i := range 100_000 {
		c.put(name(i)+string(rune('a'+i/1000)), newFound(&Snapshot{}, stamp{}), 0)
	}
	if c.unknown.size > unknownBytes {
		t.Errorf("unknown names take %d bytes", c.unknown.size)
	}
	if c.get(name(0), 0) == nil {
		t.Error("a flood of unknown names pushed a snapshot out")
	}
	c.put(name(0), newFound(&Snapshot{}, stamp{}), 0) // the account is gone
	if f := c.get(name(0), 0); f == nil || f.Account != nobody {
		t.Errorf("the older one is still there: %+v", f)
	}
	if c.get(name(99), time.Minute) == nil || c.get(name(99), time.Minute+1) != nil {
		t.Error("a snapshot's life is not a minute")
	}
	c.clear()
	if c.get(name(99), 0) != nil || c.known.size != 0 {
		t.Error("something is left")
	}
}

// A grant ends when its app password no longer opens a collection that it names.
func TestSnapshotRefusesWiderGrants(t *testing.T) {
	work, home, all, team := Collection{CalendarCollection, "work"}, Collection{CalendarCollection, "home"}, Collection{CalendarCollection, EveryCollection}, Collection{ContactsCollection, "work"}
	for name, tt := range map[string]struct {
		held, granted []Collection
		want          Code
	}{
		"neither is narrowed":            {nil, nil, 0},
		"the app password is not":        {nil, []Collection{work}, 0},
		"the same":                       {[]Collection{home, work}, []Collection{home, work}, 0},
		"one of two":                     {[]Collection{home, work}, []Collection{work}, 0},
		"one of all":                     {[]Collection{all}, []Collection{work}, 0},
		"the grant is not narrowed":      {[]Collection{work}, nil, OutOfScope},
		"one more":                       {[]Collection{work}, []Collection{home, work}, OutOfScope},
		"all of which one is held":       {[]Collection{work}, []Collection{all}, OutOfScope},
		"of that name, but another kind": {[]Collection{team}, []Collection{work}, OutOfScope},
	} {
		s := &Snapshot{Account: 1, Status: Active, Active: []Verifiable{{ID: 7, Scopes: ScopeCalendar, Collections: tt.held}}}
		if got := s.refuses(Grant{Account: 1, Password: 7, Scopes: ScopeCalendar, Collections: tt.granted}, time.Now()); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}
