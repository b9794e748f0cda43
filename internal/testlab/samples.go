package testlab

import (
	"bytes"
	"embed"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
)

//go:embed samples
var samples embed.FS

// sample returns a file of samples, its lines ended as on the wire.
func sample(name string) string {
	text, err := samples.ReadFile("samples/" + name)
	if err != nil {
		panic(err) // a name in this file is wrong
	}
	return strings.ReplaceAll(string(text), "\n", "\r\n")
}

// Mails returns messages that differ in what programs get wrong: a line with a single dot, 8-bit text, encoded names, alternatives, an invitation
// with a binary attachment, and a large attachment.
func Mails() [][]byte {
	var mails [][]byte
	for _, name := range []string{"plain.eml", "utf8.eml", "html.eml", "invitation.eml"} {
		mails = append(mails, []byte(sample(name)))
	}
	return append(mails, Attachment(200<<10))
}

// Attachment returns a message with an attachment of so many bytes, the same for the same size, which does not compress.
func Attachment(size int) []byte {
	content := make([]byte, size)
	rand.NewChaCha8([32]byte{'l', 'a', 'b'}).Read(content)
	var m bytes.Buffer
	fmt.Fprintf(&m, "From: scanner@example.org\r\nTo: alice@example.test\r\nSubject: Scan of %d bytes\r\n", size)
	fmt.Fprintf(&m, "Date: Fri, 9 Jan 2026 12:00:00 +0000\r\nMessage-ID: <scan.%d@example.org>\r\nMIME-Version: 1.0\r\n", size)
	m.WriteString("Content-Type: application/pdf; name=\"scan.pdf\"\r\nContent-Disposition: attachment; filename=\"scan.pdf\"\r\n")
	m.WriteString("Content-Transfer-Encoding: base64\r\n\r\n")
	text := base64.StdEncoding.EncodeToString(content)
	for len(text) > 76 {
		m.WriteString(text[:76] + "\r\n")
		text = text[76:]
	}
	m.WriteString(text + "\r\n")
	return m.Bytes()
}

// Event, Todo and Card return an iCalendar event, an iCalendar to-do and a vCard with the given UID.
func Event(uid string) string { return strings.ReplaceAll(sample("event.ics"), "@UID@", uid) }
func Todo(uid string) string  { return strings.ReplaceAll(sample("todo.ics"), "@UID@", uid) }
func Card(uid string) string  { return strings.ReplaceAll(sample("card.vcf"), "@UID@", uid) }
