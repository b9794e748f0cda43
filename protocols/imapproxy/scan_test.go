package imapproxy

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"postern/authstore"
	"postern/protocols/doortest"
)

// script is one with a guard for an app password, and what the client has called itself.
type script struct {
	doortest.Script
	g      *guard
	called []string
}

func newScript(readOnly bool) *script {
	s := &script{}
	grant := authstore.Grant{Scopes: authstore.ScopeMail}
	if readOnly {
		grant.Scopes = authstore.ScopeMailRead
	}
	s.g = Door{}.Guard(nil, grant, func(app string) { s.called = append(s.called, app) }).(*guard)
	s.Guard = s.g
	return s
}

// Lines that begin with "S: " are the backend's, others the client's; "\n" stands for CRLF.
func TestScanner(t *testing.T) {
	const noPerm = " NO [NOPERM] This app password may only read.\n"
	for name, tt := range map[string]struct {
		readOnly bool
		script   []string
		backend  string // what reaches it
		answers  string
		err      error
	}{
		"all passes": {false, []string{"a SELECT INBOX\nb UID STORE 1 +FLAGS (\\Deleted)\nc EXPUNGE\n"},
			"a SELECT INBOX\nb UID STORE 1 +FLAGS (\\Deleted)\nc EXPUNGE\n", "", nil},
		"no second login": {false, []string{"a LOGIN x y\nb noop\nc authenticate PLAIN AAAA\nd STARTTLS\ne UNAUTHENTICATE\nf NOOP\n"}, "b noop\nf NOOP\n",
			"a BAD You are logged in already.\nc BAD You are logged in already.\nd BAD You are logged in already.\ne NO [CANNOT] Close the connection instead.\n", nil},
		"a literal that is wanted":     {false, []string{"a APPEND Drafts {12}\n", "S: + OK\n", "b LOGIN x y\n", "c NOOP\n"}, "a APPEND Drafts {12}\nb LOGIN x y\nc NOOP\n", "", nil},
		"a literal that is not wanted": {false, []string{"a APPEND Drafts {12}\nb LOGIN x\nc NOOP\n", "S: a NO no room\n"}, "a APPEND Drafts {12}\nc NOOP\n", "b BAD You are logged in already.\n", nil},
		"another's answer is none":     {false, []string{"a NOOP\nb APPEND Drafts {12}\nc LOGIN x\n", "S: a OK done\nS: * 1 EXISTS\n"}, "a NOOP\nb APPEND Drafts {12}\n", "", nil},
		"a literal at once":            {false, []string{"a APPEND Drafts {9+}\nb LOGIN x\nc NOOP\n", "S: + OK\n"}, "a APPEND Drafts {9}\nb LOGIN x\nc NOOP\n", "", nil},
		"... waits for the backend":    {false, []string{"a NOOP\nb APPEND Drafts {9+}\nb LOGIN x\nc NOOP\n", "S: a OK\nS: * 1 EXISTS\n"}, "a NOOP\nb APPEND Drafts {9}\n", "", nil},
		"... is not wanted":            {false, []string{"a APPEND Drafts {9+}\nb LOGIN x\nc NOOP\n", "S: a NO no room\n"}, "a APPEND Drafts {9}\nc NOOP\n", "", nil},
		"... the second is not":        {false, []string{"a APPEND x {3+}\nabc {3+}\nabc {4}\nb NOOP\n", "S: + OK\n", "S: a NO\n"}, "a APPEND x {3}\nabc {3}\nb NOOP\n", "", nil},
		"... is not looked at":         {false, []string{"a NOOP ", "S: a OK\n", "{9+}\nb LOGIN x\nc NOOP {5}\n", "S: c OK\n", "d NOOP ", "S: d OK\n", "{5}\ne NOOP\n"}, "a NOOP {9}\nc NOOP {5}\nd NOOP {5}\ne NOOP\n", "", nil},
		"no announcement of one":       {false, []string{"a SEARCH {5+}x {5+ {+} {x+} 5+}\nb SEARCH x+}\nb {}\nb SEARCH {+}\nc SEARCH {7+ x\nd SEARCH {7+}\rx\n"}, "a SEARCH {5+}x {5+ {+} {x+} 5+}\nb SEARCH x+}\nb SEARCH {+}\nc SEARCH {7+ x\nd SEARCH {7", "b BAD Unknown command.\n", errBareCR},
		"a tag twice, {n}":             {false, []string{"a NOOP\na SEARCH {20}\nb LOGIN x y\n", "S: a OK\n"}, "a NOOP\na SEARCH {20}\n", "", nil},
		"a tag twice, both answered":   {false, []string{"a NOOP\na SEARCH {20}\nb LOGIN x y\n", "S: a BAD\nS: a OK\n"}, "a NOOP\na SEARCH {20}\n", "b BAD You are logged in already.\n", nil},
		"what is no answer":            {false, []string{"a SEARCH {20}\nb LOGIN x y\n", "S: \nS: a\nS: * OK {5}\nS: a OKAY\nS: DONE BAD\n"}, "a SEARCH {20}\n", "", nil},
		"{n-}":                         {false, []string{"a LIST {5-}\n"}, "a LIST {5-}", "", errLiteral},
		"an empty literal":             {false, []string{"a LIST {0+}\n {0+}\n\nb LOGIN x y\n", "S: + OK\n", "S: + OK\n"}, "a LIST {0}\n {0}\n\n", "b BAD You are logged in already.\n", nil},
		"literals of a refused one":    {false, []string{"a LOGIN {5+}\nalice {3+}\nx\n\nb NOOP\n"}, "b NOOP\n", "a BAD You are logged in already.\n", nil},
		"a refused one waits in vain":  {false, []string{"a LOGIN {5}\nb NOOP\n"}, "b NOOP\n", "a BAD You are logged in already.\n", nil},
		"literal8":                     {false, []string{"a APPEND x ~{3+}\n\x00\x00\x00\nb NOOP\n", "S: + OK\n"}, "a APPEND x ~{3}\n\x00\x00\x00\nb NOOP\n", "", nil},
		"no literal":                   {false, []string{"a SEARCH KEYWORD x}\nb SEARCH TEXT \"{5}\"\nc NOOP\n"}, "a SEARCH KEYWORD x}\nb SEARCH TEXT \"{5}\"\nc NOOP\n", "", nil},
		"idling":                       {false, []string{"a IDLE\nDONE\nb NOOP\n", "S: * 2 EXISTS\nS: + idling\n"}, "a IDLE\nDONE\nb NOOP\n", "", nil},
		"IDLE holds what follows":      {false, []string{"a IDLE\nb LOGIN x y\n"}, "a IDLE\n", "", nil},
		"IDLE is refused":              {false, []string{"a IDLE\nb NOOP\n", "S: a BAD no\n"}, "a IDLE\nb NOOP\n", "", nil},
		"compressed":                   {false, []string{"a COMPRESS DEFLATE\n", "S: a OK active\n", "b LOGIN \x00\r\r {99999999999999999999}\n"}, "a COMPRESS DEFLATE\nb LOGIN \x00\r\r {99999999999999999999}\n", "", nil},
		"not compressed":               {false, []string{"a COMPRESS LZW\nb LOGIN x y\n", "S: a NO what\n"}, "a COMPRESS LZW\n", "b BAD You are logged in already.\n", nil},
		"no tag":                       {false, []string{" LOGIN x y\n*x NOOP\na\tb LOGIN x y\n"}, "", "* BAD Invalid tag.\n* BAD Invalid tag.\n* BAD Invalid tag.\n", nil},
		"two blanks":                   {false, []string{"a  LOGIN x y\n"}, "", "a BAD Unknown command.\n", nil},
		"what is no name":              {false, []string{"a LOGIN\tx y\nb {5+}\nabcde\nc UID\tFETCH 1\nd ab\u017fcd\n"}, "", "a BAD Unknown command.\nb BAD Unknown command.\nc BAD Unknown command.\nd BAD Unknown command.\n", nil},
		"one word":                     {false, []string{"a\n\nDONE\nb{5+}\nabcde\nDONE NOOP\n"}, "", "a BAD Missing command.\n* BAD Invalid tag.\n* BAD Nothing to be done.\n* BAD Invalid tag.\n* BAD Invalid tag.\n", nil},
		"a long tag":                   {false, []string{strings.Repeat("t", 200) + " LOGIN {5+}\nalice x\nb NOOP\n"}, "b NOOP\n", "* BAD Command too long.\n", nil},
		"a bare CR":                    {false, []string{"a NOOP\rb LOGIN x y\n"}, "a NOOP", "", errBareCR},
		"a NUL":                        {false, []string{"a NOOP\x00\n"}, "a NOOP", "", errNUL},
		"a literal without end":        {false, []string{"a APPEND x {9999999999999999999}\n"}, "a APPEND x {9999999999999999999}", "", errLiteral},

		"reading": {true, []string{"a select INBOX (CONDSTORE)\nb FETCH 1 BODY[]\nc uid fetch 1:* FLAGS\nd UID SEARCH ALL\ne STATUS x (MESSAGES)\nf CLOSE\n"},
			"a EXAMINE INBOX (CONDSTORE)\nb FETCH 1 BODY[]\nc uid fetch 1:* FLAGS\nd UID SEARCH ALL\ne STATUS x (MESSAGES)\nf CLOSE\n", "", nil},
		"writing": {true, []string{"a STORE 1 +FLAGS x\nb UID STORE 1 +FLAGS x\nc EXPUNGE\nd UID EXPUNGE 1\ne CREATE x\nf XWRITE\ng UID\nh SETMETADATA x {3}\n"}, "",
			"a" + noPerm + "b" + noPerm + "c" + noPerm + "d" + noPerm + "e" + noPerm + "f" + noPerm + "g" + noPerm + "h" + noPerm, nil},
		"a literal as a way round": {true, []string{"a SEARCH SUBJECT {30}\nb STORE 1 +FLAGS (\\Deleted)\nc EXPUNGE\n", "S: a BAD no\n"}, "a SEARCH SUBJECT {30}\n", "b" + noPerm + "c" + noPerm, nil},
		"IDLE as a way round":      {true, []string{"a IDLE\nb SEARCH {3+}\nabc\nDONE x\nDONE{1+}\nx\n\ndone\nc NOOP\n", "S: + idling\n"}, "a IDLE\ndone\nc NOOP\n", "b BAD Expected DONE.\n* BAD Expected DONE.\n* BAD Expected DONE.\n* BAD Expected DONE.\n", nil},
		"IDLE takes nothing":       {true, []string{"a IDLE {5+}\nDONE \nb IDLE \nc IDLE\rx\n"}, "", "a BAD No arguments here.\nb BAD No arguments here.\n", errBareCR},
		"IDLE ends by itself":      {true, []string{"a IDLE\n", "S: + idling\n", "S: a OK\n", "DONE\nb NOOP\n"}, "a IDLE\nb NOOP\n", "* BAD Nothing to be done.\n", nil},
		"COMPRESS":                 {true, []string{"a COMPRESS DEFLATE\n"}, "", "a NO [CANNOT] No compression here.\n", nil},
		"its rights": {true, []string{"a MYRIGHTS INBOX\nb myrights \"a \\\" b\"\nc MYRIGHTS {3+}\nabc\nd MYRIGHTS\ne MYRIGHTS " + strings.Repeat("x", maxID) + "\nf NOOP\n"}, "f NOOP\n",
			"* MYRIGHTS INBOX lr\na OK These are the app password's.\n* MYRIGHTS \"a \\\" b\" lr\nb OK These are the app password's.\n" +
				"c NO [CANNOT] No literal here.\nd NO [CANNOT] No literal here.\ne NO [CANNOT] No literal here.\n", nil},
		"APPEND at once": {true, []string{"a APPEND INBOX {5+}\nhello\nb NOOP\n"}, "b NOOP\n", "a" + noPerm, nil},
	} {
		t.Run(name, func(t *testing.T) {
			for _, piece := range []int{1, 2, 3, 7, 1000} {
				s := newScript(tt.readOnly)
				s.Run(tt.script, piece)
				wantBackend, wantAnswers := doortest.CRLF(tt.backend), doortest.CRLF(tt.answers)
				if got := s.Backend.String(); tt.err == nil && got != wantBackend || tt.err != nil && !strings.HasPrefix(wantBackend, strings.TrimSuffix(got, "\r")) {
					t.Errorf("in pieces of %d: the backend gets %q, want %q", piece, got, wantBackend)
				}
				if got := s.Answers.String(); got != wantAnswers {
					t.Errorf("in pieces of %d: the client gets %q, want %q", piece, got, wantAnswers)
				}
				if !errors.Is(s.Err, tt.err) {
					t.Errorf("in pieces of %d: error %v, want %v", piece, s.Err, tt.err)
				}
			}
		})
	}
}

func TestCalled(t *testing.T) {
	for name, tt := range map[string]struct {
		script string
		want   []string
	}{
		"name and version":          {`a ID ("name" "Thunderbird" "version" "140.2")`, []string{"Thunderbird 140.2"}},
		"in another order":          {`a id ("version" NIL "OS" "iOS" "Name" "iPhone \"Mail\"")`, []string{`iPhone "Mail"`}},
		"twice":                     {"a ID (\"name\" \"one\")\r\nb NOOP\r\nc ID (\"name\" \"two\")", []string{"one", "two"}},
		"no name":                   {`a ID ("os" "linux")`, nil},
		"nothing":                   {`a ID NIL`, nil},
		"nonsense":                  {`a ID ("name`, nil},
		"more than anybody is":      {`a ID ("name" "` + strings.Repeat("x", maxID) + `")`, nil},
		"not in a literal":          {"a ID (\"name\" {3+}\r\nabc)", nil},
		"no command, but a word":    {"a NOOP\r\nID (\"name\" \"x\")", nil},
		"what can't be shown, long": {`a ID ("name" "` + "\x1b[1m" + strings.Repeat("y", 100) + `")`, []string{"[1m" + strings.Repeat("y", 61)}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, piece := range []int{1, 2, 3, 7, 10000} {
				s := newScript(false)
				s.Say(tt.script+"\r\n", piece)
				if !slices.Equal(s.called, tt.want) || s.Err != nil {
					t.Errorf("in pieces of %d: called %q, want %q; error %v", piece, s.called, tt.want, s.Err)
				}
				if got := s.Backend.String(); strings.HasPrefix(got, "a ID") && got != strings.Replace(tt.script, "{3+}\r\nabc)", "{3}", 1)+"\r\n" {
					t.Errorf("in pieces of %d: the backend gets %q", piece, got)
				}
			}
		})
	}
}

// The "+" for a literal of which the client does not wait to be asked is kept from it, and no other.
func TestInvitations(t *testing.T) {
	for name, tt := range map[string]struct{ client, backend, want string }{
		"asked for":          {"a APPEND x {3}\n", "* 1 EXISTS\n+ OK\na OK\n", "* 1 EXISTS\n+ OK\na OK\n"},
		"not asked for":      {"a APPEND x {3+}\nabc\nb NOOP\n", "* 1 EXISTS\n+ OK\n* 2 EXISTS\na OK\n+ what\nb OK\n", "* 1 EXISTS\n* 2 EXISTS\na OK\n+ what\nb OK\n"},
		"both":               {"a APPEND x {3+}\nabc {3}\n", "+ OK\n* 1 EXISTS\n+ \na OK\n", "* 1 EXISTS\n+ \na OK\n"},
		"refused":            {"a APPEND x {3+}\nabc\nb IDLE\n", "a NO\n+ idling\n", "a NO\n+ idling\n"},
		"words of a message": {"a NOOP\na APPEND x {3+}\nabc\n", "* 1 FETCH (X {6}\n+ OK\n)\na OK\n+ OK\na OK\n", "* 1 FETCH (X {6}\n+ OK\n)\na OK\na OK\n"},
	} {
		for _, piece := range []int{1, 2, 3, 1000} {
			s := newScript(false)
			s.Say(doortest.CRLF(tt.client), 1000)
			s.Hear(doortest.CRLF(tt.backend), piece)
			if got := s.Passed.String(); got != doortest.CRLF(tt.want) {
				t.Errorf("%s, in pieces of %d: the client gets %q, want %q", name, piece, got, doortest.CRLF(tt.want))
			}
		}
	}
}

// While a "+" is kept back, the client is where a response has ended.
func TestBoundaryAtAHiddenInvitation(t *testing.T) {
	s := newScript(false)
	s.Say("a APPEND x {3+}\r\nabc\r\n", 1000)
	for i, tt := range []struct {
		said, pass string
		boundary   int
	}{{"* 1 EXISTS\r\n+ O", "* 1 EXISTS\r\n", 12}, {"K", "", 0}, {"\r\n* 2 EX", "* 2 EX", 0}, {"ISTS\r\n", "ISTS\r\n", 6}} {
		if pass, boundary := s.g.Down([]byte(tt.said)); string(pass) != tt.pass || boundary != tt.boundary {
			t.Errorf("%d: Down(%q) = %q, %d; want %q, %d", i, tt.said, pass, boundary, tt.pass, tt.boundary)
		}
	}
}

// What the client has the beginning of, it gets the end of.
func TestInvitationThatCameTooEarly(t *testing.T) {
	s := newScript(false)
	s.Hear("+ O", 3)
	s.Say("a APPEND x {3+}\r\n", 100)
	s.Hear("K\r\n", 3)
	if got := s.Passed.String(); got != "+ OK\r\n" {
		t.Errorf("the client gets %q", got)
	}
}

// In whatever pieces the bytes come, the outcome is the same.
func FuzzScanner(f *testing.F) {
	f.Add("a SELECT INBOX\r\nb STORE 1 +FLAGS x\r\nc APPEND x {3}\r\nabc\r\n", "+ OK\r\nc OK\r\n", 3, true)
	f.Add("a LOGIN {3+}\r\nabc x\r\nb IDLE\r\nDONE\r\n", "+ idling\r\n", 2, false)
	f.Add("a SEARCH {10}\r\nb STORE\r\n", "a NO\r\n", 1, true)
	f.Add("a APPEND x {3+}\r\nabc {2+}\r\nde\r\n", "* 1 FETCH (X {3}\r\n+ x)\r\n+ OK\r\n* 2 EXISTS\r\n+ OK\r\na OK {3}\r\n", 4, false)
	f.Add("a ID (\"name\" \"x\")\r\n", "a OK\r\n", 4, false)
	f.Fuzz(func(t *testing.T, client, backend string, piece int, readOnly bool) {
		whole, pieces := newScript(readOnly), newScript(readOnly)
		whole.Say(client, len(client)+1)
		for line := range strings.Lines(backend) { // what is asked for is sent before the next line is heard
			whole.Hear(line, len(line))
		}
		piece = max(1, piece%20)
		pieces.Say(client, piece)
		for line := range strings.Lines(backend) {
			pieces.Hear(line, piece)
		}
		if (whole.Err == nil) != (pieces.Err == nil) || whole.Answers.String() != pieces.Answers.String() || !slices.Equal(whole.called, pieces.called) {
			t.Errorf("at once: %q, %v; in pieces of %d: %q, %v", whole.Answers.String(), whole.Err, piece, pieces.Answers.String(), pieces.Err)
		}
		if whole.g.scan.state != opaque && whole.Boundary() != pieces.Boundary() {
			t.Errorf("at once, the last boundary is at %d; in pieces of %d, at %d of %q", whole.Boundary(), piece, pieces.Boundary(), whole.Passed.String())
		}
		if whole.Err == nil && (whole.Backend.String() != pieces.Backend.String() || whole.Passed.String() != pieces.Passed.String()) {
			t.Errorf("at once: %q, %q; in pieces of %d: %q, %q", whole.Backend.String(), whole.Passed.String(), piece, pieces.Backend.String(), pieces.Passed.String())
		}
	})
}
