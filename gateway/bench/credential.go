package bench

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Credential is a name and its secret, which no verb prints.
type Credential struct {
	Address string
	ID      string // may be empty: what a path has in the address's place
	secret  string
}

// Format shows the name only.
func (c Credential) Format(f fmt.State, _ rune) { io.WriteString(f, c.Address) }

const maxCredentials = 100_000

// ReadCredentials reads lines "address secret", with an id behind them where paths need one. Empty lines and those that begin with #
// are passed over. Its errors name lines, and nothing of what stands on them.
func ReadCredentials(r io.Reader) ([]Credential, error) {
	var list []Credential
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		fields := append(strings.Fields(line), "")
		if len(fields) < 3 || len(fields) > 4 {
			return nil, fmt.Errorf("line %d is neither \"address secret\" nor \"address secret id\"", n)
		}
		if len(list) == maxCredentials {
			return nil, fmt.Errorf("line %d: more than %d credentials", n, maxCredentials)
		}
		list = append(list, Credential{Address: fields[0], secret: fields[1], ID: fields[2]})
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, errors.New("there are no lines \"address secret\"")
	}
	return list, nil
}
