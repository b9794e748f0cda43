package bench

import (
	"encoding/base64"
	"strings"
	"testing"
)

func TestSMTPAnswers(t *testing.T) {
	t.Parallel()
	const taken = "250 2.1.0 ok\r\n250 2.1.5 ok\r\n354 go on\r\n"
	for name, tt := range map[string]struct {
		text string
		want string // of the error; empty: none
	}{
		"taken":               {taken + "250 2.0.0 ok\r\n", ""},
		"several lines":       {"250-one\r\n250 two\r\n250-\r\n250\r\n354 go on\r\n250-2.0.0\r\n250 2.0.0 ok\r\n", ""},
		"no such sender":      {"550 5.7.1 no\r\n" + taken, `"550 5.7.1 no"`},
		"no recipients":       {"250 ok\r\n550 no\r\n554 none\r\n", `"550 no"`},
		"data at once":        {"250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n", `"250 ok"`},
		"refused in the end":  {taken + "452 4.3.1 full\r\n", `"452 4.3.1 full"`},
		"refused in two":      {taken + "250-ok\r\n552 no\r\n", `"552 no"`},
		"cut":                 {taken, "EOF"},
		"cut in an answer":    {taken + "250-2.0.0 ok\r\n", "EOF"},
		"endless line":        {"250 " + strings.Repeat("x", 5000), "buffer full"},
		"something else":      {"* OK IMAP4rev1 ready\r\n", "IMAP4rev1"},
		"less than an answer": {"25\r\n", `"25"`},
	} {
		for _, pipelining := range []bool{false, true} {
			nc, r := says(tt.text)
			err := (&smtpConn{nc: nc, r: r, pipelining: pipelining}).send("a@example.test", []byte("."))
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%s, pipelining %t: %v, want %q", name, pipelining, err, tt.want)
			}
		}
	}
}

func TestSMTPOffers(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]smtpConn{
		"250 mail.example.test\r\n":                                          {},
		"250-mail.example.test\r\n250-PIPELINING\r\n250 SIZE\r\n":            {pipelining: true, size: true},
		"250-mail.example.test\r\n250-size 1000\r\n250-X-SIZE\r\n250 XY\r\n": {size: true},
		"250-PIPE\r\n250 pipelining\r\n":                                     {pipelining: true},
		"250-\r\n250\r\n":                                                    {},
	} {
		nc, r := says(text)
		c := &smtpConn{nc: nc, r: r, pipelining: true, size: true} // what was offered before STARTTLS counts no more
		if err := c.hello(); err != nil || c.pipelining != want.pipelining || c.size != want.size {
			t.Errorf("%q: pipelining %t, size %t, %v", text, c.pipelining, c.size, err)
		}
	}
}

// The message is one of base64 as apps write it, as long as asked for but for a line, and its end is at the end only.
func TestMail(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 300, 16 << 10, 16<<10 + 1, 1 << 20} {
		text, ok := strings.CutSuffix(string(mail(size)), messageEnd)
		header, body, found := strings.Cut(text+"\r\n", "\r\n\r\n")
		if !ok || !found && size > len(mailHeader) || strings.Contains(text, "\r\n.") {
			t.Fatalf("%d bytes: no message: %.500q", size, text)
		}
		if got := len(text) + len("\r\n"); got < size || got > max(size, len(mailHeader))+78 {
			t.Errorf("%d bytes: got %d", size, got)
		}
		for line := range strings.Lines(body) {
			if len(line) != 78 || !strings.HasSuffix(line, "\r\n") {
				t.Fatalf("%d bytes: a line is %q", size, line)
			}
		}
		if _, err := base64.StdEncoding.DecodeString(body); err != nil || !strings.Contains(header, "base64") {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func FuzzSMTPAnswers(f *testing.F) {
	for _, seed := range []string{"250 ok\r\n250 ok\r\n354 go on\r\n250 ok\r\n", "250-\r\n250\r\n", "550 no\r\n", "25"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		nc, r := says(text)
		if err := (&smtpConn{nc: nc, r: r, pipelining: true}).send("a@example.test", nil); err == nil && strings.Count(text, "250") < 3 {
			t.Errorf("%q was taken for success", text)
		}
	})
}

func TestMeasuredShare(t *testing.T) {
	t.Parallel()
	m := Measured{Operations: 50, Failed: 2, Seconds: 2, PerSecond: 25, P50: 40, P99: 60, CPU: 1000, ClientCPU: 2000}
	m.share(20)
	want := Measured{Operations: 1000, Failed: 40, Seconds: 2, PerSecond: 500, P50: 2, P99: 3, CPU: 50, ClientCPU: 100}
	if m != want {
		t.Errorf("share = %+v, want %+v", m, want)
	}
}
