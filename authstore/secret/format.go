// Package secret makes, reads, digests and seals secrets: bytes in, bytes out, no I/O. It knows the shape of app passwords and
// the root keys; what a digest or a sealed value means is its callers' affair.
package secret

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
)

// alphabet has the letters that people don't mistake for each other on paper: a to z without i and l.
const alphabet = "abcdefghjkmnopqrstuvwxyz"

const (
	letters    = len(alphabet) // 24
	randomSize = 19            // letters of randomness: 87 bits
	// Size is the number of letters of an app password: 19 random ones and a check letter.
	Size = randomSize + 1
	// maxTyped bounds what Parse looks at, in bytes: nobody types more dashes and blanks than that.
	maxTyped = 4 * Size
)

// Errors of Parse. Both say "not an app password" from what was typed alone.
var (
	ErrShape       = errors.New("not the shape of an app password")
	ErrCheckLetter = errors.New("the check letter of the app password is wrong")
)

// Password is an app password in its canonical form: 20 lower-case letters without dashes. No verb prints it.
type Password [Size]byte

// Generate makes an app password from crypto/rand.
func Generate() Password { return generate(rand.Reader) }

func generate(random io.Reader) Password {
	var p Password
	for i := 0; i < randomSize; {
		var b [1]byte
		if _, err := io.ReadFull(random, b[:]); err != nil {
			panic("secret: no randomness: " + err.Error()) // crypto/rand never fails
		}
		if v := int(b[0]); v < 256/letters*letters { // the rest would make some letters likelier
			p[i] = alphabet[v%letters]
			i++
		}
	}
	p[randomSize] = alphabet[checkValue(p[:randomSize])]
	return p
}

// Reveal gives the form that is shown once: four groups of five letters.
func (p *Password) Reveal() string {
	return fmt.Sprintf("%s-%s-%s-%s", p[0:5], p[5:10], p[10:15], p[15:20])
}

// Clear overwrites the password.
func (p *Password) Clear() { clear(p[:]) }

// Format hides the password from every verb.
func (p Password) Format(f fmt.State, _ rune) { io.WriteString(f, "[secret]") }

// MarshalText hides the password from encoders.
func (p Password) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }

// Parse reads what a person or an app typed: capitals, dashes and blanks are forgiven. It allocates nothing, and keeps nothing of typed.
func Parse(typed []byte) (Password, error) {
	var p Password
	n := 0
	if len(typed) > maxTyped {
		return Password{}, ErrShape
	}
	for i := 0; i < len(typed); i++ {
		c := typed[i]
		switch {
		case c == '-' || c == ' ' || c == '\t':
			continue
		case c == 0xc2 && i+1 < len(typed) && typed[i+1] == 0xa0: // a no-break space, from a copied web page
			i++
			continue
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		}
		if n == Size || values[c] == notALetter {
			return Password{}, ErrShape
		}
		p[n] = c
		n++
	}
	if n != Size {
		return Password{}, ErrShape
	}
	if values[p[randomSize]] != checkValue(p[:randomSize]) {
		return Password{}, ErrCheckLetter
	}
	return p, nil
}

const notALetter = 0xff

// values maps a byte to its place in the alphabet.
var values = func() (v [256]byte) {
	for i := range v {
		v[i] = notALetter
	}
	for i := range alphabet {
		v[alphabet[i]] = byte(i)
	}
	return v
}()

// checkValue folds the letters through a fixed permutation of the alphabet at each step (as Damm and Verhoeff do in other
// alphabets): the step is one to one in the letter, so any single wrong letter changes the result; the permutation moves
// every value and spreads differences, so that most swapped neighbours do too. TestCheckLetter counts them.
func checkValue(p []byte) byte {
	var c byte
	for _, b := range p {
		c = permutation[(c+values[b])%byte(letters)]
	}
	return c
}

// permutation was searched for: no two places but one pair have the same p(x)-x, so that of 276 kinds of swapped neighbours
// one goes unnoticed. (None at all is impossible: a cyclic group of even order has no complete mapping.)
var permutation = [letters]byte{6, 14, 17, 4, 11, 1, 18, 0, 8, 12, 2, 22, 9, 15, 19, 23, 10, 21, 16, 5, 3, 20, 7, 13}
