package identity

import (
	"strings"
	"unicode"
)

// maxAgent bounds what is kept of a User-Agent, in bytes.
const maxAgent = 200

// Agent makes what a browser says of itself short and printable.
func Agent(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), maxAgent)], "")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
}
