package sieveproxy

import (
	"strings"

	"postern/protocols"
	"postern/protocols/saslauth"
)

// status is the line that ends a response (RFC 5804 section 1.2); code may be empty.
func status(word, code, text string) string {
	if code != "" {
		word += " (" + code + ")"
	}
	return word + " " + str(text) + "\r\n"
}

// Codes of RFC 5804 section 1.3.
const (
	tryLater      = "TRYLATER"
	encryptNeeded = "ENCRYPT-NEEDED"
)

// refusedLogin is the answer to a login. The standard has a code only for what passes: where there is one, an app does not ask its owner
// for a new password.
func refusedLogin(a protocols.Answer) string {
	if a.Ours() {
		return status("NO", tryLater, a.Text)
	}
	return status("NO", "", a.Text)
}

// goodbye is what a client is told whose connection ends, before or after its login.
func goodbye(reason error) []byte {
	e := protocols.EndingOf(reason)
	switch e {
	case protocols.Revoked, protocols.Closed:
		return []byte(status("BYE", "", e.Text()))
	}
	return []byte(status("BYE", tryLater, e.Text()))
}

// shown are the backends' capabilities that a client is told of before its login (RFC 5804 section 1.7, RFC 6134 section 2.7). Others would
// stand for commands that the guard does not know, or are for one that has logged in.
var shown = []string{"SIEVE", "NOTIFY", "MAXREDIRECTS", "EXTLISTS"}

// forClient leaves of a backend's list what is shown.
func forClient(list protocols.Capabilities) protocols.Capabilities {
	kept := protocols.Capabilities{} // which is not nil: it is known
	for _, name := range shown {
		if value, ok := list.Get(name); ok {
			kept.Add(name, value)
		}
	}
	return kept
}

// capabilities are the lines that a client is told before its login.
func capabilities(backends protocols.Capabilities, mayLogIn, offersTLS bool) string {
	var b strings.Builder
	line := func(name, value string) { b.WriteString(str(name) + " " + str(value) + "\r\n") }
	line("IMPLEMENTATION", "Postern")
	if !backends.Has("SIEVE") { // it is never left out
		line("SIEVE", "")
	}
	for _, one := range backends {
		line(one.Name, one.Value)
	}
	if mayLogIn {
		line("SASL", saslauth.Plain)
	} else {
		line("SASL", "")
	}
	if offersTLS {
		b.WriteString(str("STARTTLS") + "\r\n")
	}
	line("VERSION", "1.0")
	return b.String()
}
