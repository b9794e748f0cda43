package bench

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// Credential is a name and its secret, which no verb prints.
type Credential struct {
	Address string
	secret  string
}

// Format shows the name only.
func (c Credential) Format(f fmt.State, _ rune) { io.WriteString(f, c.Address) }

const maxCredentials = 100_000

// ReadCredentials reads lines "address secret". Empty lines and those that begin with # are passed over. Its errors name lines, and
// nothing of what stands on them.
func ReadCredentials(r io.Reader) ([]Credential, error) {
	var list []Credential
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		address, secret, ok := strings.Cut(line, " ")
		if secret = strings.TrimSpace(secret); !ok || secret == "" {
			return nil, fmt.Errorf("line %d is not \"address secret\"", n)
		}
		if len(list) == maxCredentials {
			return nil, fmt.Errorf("line %d: more than %d credentials", n, maxCredentials)
		}
		list = append(list, Credential{address, secret})
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("there are no lines \"address secret\"")
	}
	return list, nil
}
