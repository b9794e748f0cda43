package identity

import (
	"strings"
	"unicode"

	"postern/authstore"
)

// maxAgent bounds what is kept of a User-Agent, in bytes.
const maxAgent = 200

// Actor is a visitor as the history names him.
func (v Visitor) Actor() authstore.Actor {
	return authstore.Actor{Name: "portal", Client: v.Client, Agent: shortAgent(v.Agent)}
}

// shortAgent makes what a browser says of itself short and printable.
func shortAgent(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), maxAgent)], "")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
}
