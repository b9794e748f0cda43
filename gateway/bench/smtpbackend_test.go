package bench

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// heard is a connection whose peer has said all it will, and keeps the answers, each write by itself.
type heard struct {
	fixed
	writes [][]byte
}

func (h *heard) Write(p []byte) (int, error) {
	h.writes = append(h.writes, bytes.Clone(p))
	return len(p), nil
}

// The backend answers the same, however its commands come in.
func TestSMTPBackend(t *testing.T) {
	t.Parallel()
	const (
		in       = "AUTH PLAIN AGEAYg==\r\n"
		envelope = "MAIL FROM:<a>\r\nRCPT TO:<a>\r\nDATA\r\n"
		taken    = "250 2.1.0 ok\r\n250 2.1.5 ok\r\n354 go on\r\n250 2.0.0 ok\r\n"
	)
	for name, tt := range map[string]struct{ text, want string }{
		"helo":             {"HELO x\r\nQUIT\r\n", "250 bench\r\n221 2.0.0 bye\r\n"},
		"ehlo":             {"ehlo x\r\nNOOP\r\n", smtpHello + "250 2.0.0 ok\r\n"},
		"not logged in":    {envelope + "RSET\r\n", strings.Repeat("530 5.7.0 log in first\r\n", 3) + "250 2.0.0 ok\r\n"},
		"message":          {in + envelope + "a\r\n..\r\n.\r\n", "235 2.7.0 ok\r\n" + taken},
		"two steps":        {"AUTH PLAIN\r\nAGEAYg==\r\n" + envelope + "a\r\n.\r\n", "334 \r\n235 2.7.0 ok\r\n" + taken},
		"other mechanism":  {"AUTH CRAM-MD5\r\n" + "MAIL FROM:<a>\r\n", "504 5.5.4 PLAIN only\r\n530 5.7.0 log in first\r\n"},
		"empty message":    {in + envelope + ".\r\n" + envelope + ".\r\nQUIT\r\n", "235 2.7.0 ok\r\n" + taken + taken + "221 2.0.0 bye\r\n"},
		"almost the end":   {in + envelope + "\n.\r\n\r\n.\n.\r\r\n..\r\n\r\n.\r\nNOOP\r\n", "235 2.7.0 ok\r\n" + taken + "250 2.0.0 ok\r\n"},
		"long message":     {in + envelope + strings.Repeat("0123456789abcde\r\n", 20_000) + ".\r\nQUIT\r\n", "235 2.7.0 ok\r\n" + taken + "221 2.0.0 bye\r\n"},
		"chunks":           {in + "MAIL FROM:<a>\r\nBDAT 7\r\n\r\n.\r\nabBDAT 0 LAST\r\nNOOP\r\n", "235 2.7.0 ok\r\n250 2.1.0 ok\r\n" + strings.Repeat("250 2.0.0 ok\r\n", 3)},
		"chunk of nothing": {in + "BDAT x\r\nNOOP\r\n", "235 2.7.0 ok\r\n501 5.5.4 no size\r\n"},
		"xclient": {"XCLIENT ADDR=127.0.0.1 LOGIN=a NAME=[UNAVAILABLE]\r\nEHLO y\r\nMAIL FROM:<a>\r\n",
			smtpGreeting + smtpHello + "250 2.1.0 ok\r\n"},
		"xclient without a login": {"XCLIENT ADDR=127.0.0.1\r\nMAIL FROM:<a>\r\n", smtpGreeting + "530 5.7.0 log in first\r\n"},
		"unknown":                 {"VRFY a\r\n", "502 5.5.1 not for benchmarks\r\n"},
	} {
		for way, r := range map[string]io.Reader{"at once": strings.NewReader(tt.text), "byte by byte": iotest.OneByteReader(strings.NewReader(tt.text))} {
			nc := &heard{fixed: fixed{Reader: r}}
			b := newSMTPBackend(nc)
			for b.next() == nil {
			}
			b.w.Flush()
			if got := string(bytes.Join(nc.writes, nil)); got != tt.want {
				t.Errorf("%s, %s:\n%s\nwant:\n%s", name, way, got, tt.want)
			}
		}
	}
}

// Answers to a group go in one write: gateways would be measured with more packets than servers send them.
func TestSMTPBackendAnswersTogether(t *testing.T) {
	t.Parallel()
	nc := &heard{fixed: fixed{Reader: strings.NewReader("MAIL FROM:<a>\r\nRCPT TO:<a>\r\nDATA\r\n")}}
	b := newSMTPBackend(nc)
	for b.next() == nil {
	}
	if len(nc.writes) != 1 {
		t.Errorf("%d writes: %q", len(nc.writes), nc.writes)
	}
}

// A message's end is found wherever reads begin, and what is behind it left alone.
func FuzzMessageEnd(f *testing.F) {
	for _, seed := range []string{"", "a", ".", "\r\n", "\r\n.\r", "\r\n..\r\n", "\n.\n", "\r\n.\r\r\n"} {
		f.Add(seed, true)
		f.Add(strings.Repeat(seed, 30_000), false)
	}
	f.Fuzz(func(t *testing.T, text string, slow bool) {
		text = strings.ReplaceAll("\r\n"+text, "\r\n.", "\r\n..")[len("\r\n"):] // as clients do (RFC 5321 section 4.5.2)
		var r io.Reader = strings.NewReader(text + messageEnd + "QUIT\r\n")
		if slow {
			r = iotest.HalfReader(r)
		}
		b := newSMTPBackend(&heard{fixed: fixed{Reader: r}})
		if err := b.skipMessage(); err != nil {
			t.Fatalf("%.100q: %v", text, err)
		}
		if left, err := io.ReadAll(b.r); err != nil || string(left) != "QUIT\r\n" {
			t.Errorf("%.100q: %q is left, %v", text, left, err)
		}
	})
}
