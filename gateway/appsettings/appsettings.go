// Package appsettings is what people type into an app beside the app password: words for the command line and the portal. The gateway
// fills them from its configuration.
package appsettings

import (
	"fmt"
	"strings"
)

// Settings are what a person types into an app beside the app password.
type Settings struct {
	UserName   string `json:"user_name"`
	Server     string `json:"server"`
	IMAP       []Port `json:"imap,omitempty"`
	POP3       []Port `json:"pop3,omitempty"`
	Submission []Port `json:"submission,omitempty"`
	Sieve      []Port `json:"managesieve,omitempty"`
	DAV        string `json:"dav,omitempty"` // the base URL of calendars and contacts
}

// Port is one way to reach a protocol.
type Port struct {
	Number   string   `json:"port"`
	Security Security `json:"security"`
}

// Security is how a way is encrypted, in the words of mail apps.
type Security string

// The securities.
const (
	TLS      Security = "TLS"
	STARTTLS Security = "STARTTLS"
	None     Security = "no encryption"
)

// String is the settings for people, a line each.
func (s Settings) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "In the app:\n  user name    %s\n  password     the app password above\n", s.UserName)
	for _, way := range []struct {
		name  string
		ports []Port
	}{{"IMAP", s.IMAP}, {"POP3", s.POP3}, {"SMTP", s.Submission}, {"ManageSieve", s.Sieve}} {
		for _, p := range way.ports {
			fmt.Fprintf(&b, "  %-11s  %s, port %s, %s\n", way.name, s.Server, p.Number, p.Security)
		}
	}
	switch {
	case s.DAV != "":
		fmt.Fprintf(&b, "  DAV          %s\n", s.DAV)
	case s.IMAP == nil && s.POP3 == nil && s.Submission == nil && s.Sieve == nil:
		b.WriteString("  No listener here serves what it opens.\n")
	}
	return b.String()
}
