package secret

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	p := Generate()
	shown := p.Reveal()
	for name, typed := range map[string]string{
		"as shown":       shown,
		"without dashes": strings.ReplaceAll(shown, "-", ""),
		"with blanks":    " " + strings.ReplaceAll(shown, "-", " ") + "\t",
		"no-break":       strings.ReplaceAll(shown, "-", "\u00a0"),
		"capitals":       strings.ToUpper(shown),
	} {
		got, err := Parse([]byte(typed))
		if err != nil || got != p {
			t.Errorf("%s: Parse = %v, %v", name, got, err)
		}
	}
	for name, typed := range map[string]string{
		"empty":              "",
		"a primary password": "Tr0ub4dor&3",
		"a letter short":     shown[:len(shown)-1],
		"a letter more":      shown + "a",
		"an i":               "i" + shown[1:],
		"far too long":       strings.Repeat("-", 100) + shown,
		"half a no-break":    shown + "\xc2",
	} {
		if _, err := Parse([]byte(typed)); !errors.Is(err, ErrShape) {
			t.Errorf("%s: Parse = %v, want ErrShape", name, err)
		}
	}
	if n := testing.AllocsPerRun(100, func() { Parse([]byte(shown)) }); n > 1 { // the conversion is the test's
		t.Errorf("Parse allocates %v times", n)
	}
}

// Each wrong letter is noticed, and all but 1 in 276 kinds of swapped neighbours.
func TestCheckLetter(t *testing.T) {
	swaps, missed := 0, 0
	for range 2000 {
		p := Generate()
		for i := range Size {
			for j := range letters {
				q := p
				if q[i] = alphabet[j]; q == p {
					continue
				}
				if _, err := Parse(q[:]); !errors.Is(err, ErrCheckLetter) {
					t.Fatalf("a wrong letter at %d goes unnoticed: %v", i, err)
				}
			}
			if i+1 == Size || p[i] == p[i+1] {
				continue
			}
			q := p
			q[i], q[i+1] = q[i+1], q[i]
			swaps++
			if _, err := Parse(q[:]); err == nil {
				missed++
			}
		}
	}
	if rate := float64(missed) / float64(swaps); rate > 0.012 {
		t.Errorf("%d of %d swapped neighbours go unnoticed", missed, swaps)
	}
}

// All letters are equally likely: chi square over 24 letters, 23 degrees of freedom; beyond 70 is less likely than 1 in 10^6.
func TestGenerateIsUniform(t *testing.T) {
	const rounds = 50_000
	var count [randomSize][letters]int
	for range rounds {
		p := Generate()
		for i := range randomSize {
			count[i][values[p[i]]]++
		}
	}
	want := float64(rounds) / float64(letters)
	for i := range count {
		var chi float64
		for _, n := range count[i] {
			chi += (float64(n) - want) * (float64(n) - want) / want
		}
		if chi > 80 {
			t.Errorf("letter %d: chi square %.1f", i, chi)
		}
	}
}

func TestNothingPrintsASecret(t *testing.T) {
	p, k := Generate(), NewKeyring()
	text := fmt.Sprintf("%v %s %x %+v %#v %q %v %+v %#v", p, p, p, p, p, &p, k, k, struct{ K *Keyring }{k})
	if strings.Contains(text, string(p[:5])) || strings.Contains(text, fmt.Sprintf("%x", p[:5])) {
		t.Errorf("shown: %s", text)
	}
	if _, root, _ := strings.Cut(string(k.Text()), "\n1 "); strings.Contains(text, root[:10]) {
		t.Errorf("shown: %s", text)
	}
	if b, _ := p.MarshalText(); string(b) != "[secret]" {
		t.Errorf("MarshalText = %s", b)
	}
}

func TestKeyring(t *testing.T) {
	one := NewKeyring()
	two, err := one.Add()
	if err != nil {
		t.Fatal(err)
	}
	read, err := ParseKeyring(two.Text())
	if err != nil || fmt.Sprint(read.Numbers()) != "[1 2]" || read.Newest() != 2 {
		t.Fatalf("ParseKeyring(Text()) = %v, %v", read.Numbers(), err)
	}
	p, other := Generate(), Generate()
	d, err := one.Digest(1, 7, &p)
	if err != nil {
		t.Fatal(err)
	}
	digest := func(k *Keyring, n uint32, account int64, p *Password) [32]byte {
		t.Helper()
		d, err := k.Digest(n, account, p)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if digest(read, 1, 7, &p) != d {
		t.Error("the same key digests differently after writing and reading")
	}
	if digest(read, 2, 7, &p) == d || digest(one, 1, 8, &p) == d || digest(one, 1, 7, &other) == d {
		t.Error("a digest does not depend on key, account and secret")
	}
	if _, err := one.Digest(2, 7, &p); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("Digest with an unknown key: %v", err)
	}
	if _, err := one.Without(1); err == nil {
		t.Error("the only key went away")
	}
	if rest, err := two.Without(1); err != nil || fmt.Sprint(rest.Numbers()) != "[2]" {
		t.Errorf("Without(1) = %v, %v", rest.Numbers(), err)
	}
	c1, _ := two.Check(1)
	c2, _ := two.Check(2)
	if again, _ := read.Check(1); bytes.Equal(c1, c2) || !bytes.Equal(c1, again) {
		t.Error("check values don't tell keys apart")
	}
	for _, bad := range []string{"", "# nothing\n", "1", "0 AAAA", "x AAAA", "1 !!", "1 AAAA",
		string(one.Text()) + string(one.Text())} {
		if _, err := ParseKeyring([]byte(bad)); err == nil {
			t.Errorf("ParseKeyring(%q) is taken", bad)
		}
	}
}

func TestSeal(t *testing.T) {
	one := NewKeyring()
	two, _ := one.Add()
	sealed, err := two.SealRow(1, []byte("hunter2"), "sealed/7/dovecot")
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := one.OpenRow(sealed, "sealed/7/dovecot"); err != nil || string(plain) != "hunter2" {
		t.Errorf("OpenRow = %q, %v", plain, err)
	}
	if _, err := one.OpenRow(sealed, "sealed/8/dovecot"); !errors.Is(err, ErrNotOpened) {
		t.Errorf("in another place: %v", err)
	}
	if _, err := one.OpenCache(sealed, "sealed/7/dovecot"); !errors.Is(err, ErrNotOpened) {
		t.Errorf("for another purpose: %v", err)
	}
	for i := range sealed {
		altered := bytes.Clone(sealed)
		altered[i] ^= 1
		if _, err := two.OpenRow(altered, "sealed/7/dovecot"); err == nil {
			t.Errorf("opens with byte %d altered", i)
		}
		if _, err := two.OpenRow(sealed[:i], "sealed/7/dovecot"); err == nil {
			t.Errorf("opens cut to %d bytes", i)
		}
	}
	newer, _ := two.SealCache(2, nil, "x")
	if _, err := one.OpenCache(newer, "x"); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("sealed with a key we lack: %v", err)
	}
	a, _ := two.Name(1, "ab", "c")
	b, _ := two.Name(1, "a", "bc")
	if a == b {
		t.Error("names run together")
	}
}

func FuzzParse(f *testing.F) {
	p := Generate()
	f.Add([]byte(p.Reveal()))
	f.Add([]byte("correct horse battery staple"))
	f.Fuzz(func(t *testing.T, typed []byte) {
		p, err := Parse(typed)
		if err != nil {
			return
		}
		if again, err := Parse([]byte(p.Reveal())); err != nil || again != p {
			t.Errorf("Parse(Reveal(Parse(%q))) = %v", typed, err)
		}
	})
}

func FuzzParseKeyring(f *testing.F) {
	f.Add(NewKeyring().Text())
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := ParseKeyring(text)
		if err != nil {
			return
		}
		if again, err := ParseKeyring(k.Text()); err != nil || fmt.Sprint(again.Numbers()) != fmt.Sprint(k.Numbers()) {
			t.Errorf("does not survive writing: %v", err)
		}
	})
}

func BenchmarkDigest(b *testing.B) {
	k, p := NewKeyring(), Generate()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Digest(1, rand.Int64(), &p); err != nil {
			b.Fatal(err)
		}
	}
}

// A MAC is bound to its key, its purpose and where one part ends and the next begins.
func TestMAC(t *testing.T) {
	k, err := NewKeyring().Add()
	if err != nil {
		t.Fatal(err)
	}
	mac := func(n uint32, purpose string, parts ...string) string {
		m, err := k.MAC(n, purpose, parts...)
		if err != nil || len(m) != 32 {
			t.Fatalf("MAC = %x, %v", m, err)
		}
		return string(m)
	}
	one := mac(1, "a", "b", "c")
	if mac(1, "a", "b", "c") != one {
		t.Error("two MACs of the same differ")
	}
	for what, other := range map[string]string{"key": mac(2, "a", "b", "c"), "purpose": mac(1, "x", "b", "c"), "parts": mac(1, "a", "bc", ""), "fewer": mac(1, "a", "bc")} {
		if other == one {
			t.Errorf("another %s makes the same MAC", what)
		}
	}
	if _, err := k.MAC(9, "a"); err != ErrUnknownKey {
		t.Errorf("an unknown key: %v", err)
	}
}
