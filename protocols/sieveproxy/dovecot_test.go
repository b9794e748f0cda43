package sieveproxy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"postern/authstore"
	"postern/gateway/live"
	"postern/internal/testlab"
	"postern/protocols"
	"postern/protocols/doortest"
	"postern/protocols/sieveproxy"
)

// What a client sees through the gateway is what it sees without it: the same random script, in random pieces, once at Pigeonhole itself and
// once through the relay.
func TestThroughTheRelayAsWithoutIt(t *testing.T) {
	t.Parallel()
	dovecot := testlab.Dovecot(t, testlab.Sieve())
	d := serve(t, toDovecot(dovecot))
	for n := range 4 { // one after the other: they see each other's scripts
		seed, box := rand.Uint64(), fmt.Sprint("box", n)
		direct := doortest.Dial(t, dovecot.Sieve)
		answer(direct)
		direct.Send("AUTHENTICATE \"PLAIN\" \"%s\"\r\n", b64(testlab.Alice+"\x00"+dovecot.MasterUser+"\x00"+dovecot.MasterPassword))
		answer(direct)
		without := script(direct, box, seed)
		through := d.Dial(t)
		login(t, through, testlab.Bob)
		if got := script(through, box, seed); got != without {
			t.Errorf("seed %d: through the gateway\n%s\nwithout it\n%s", seed, got, without)
		}
	}
}

// script says random commands, all in one stream of random pieces, and returns all answers.
func script(k *doortest.Client, box string, seed uint64) string {
	r := rand.New(rand.NewPCG(seed, 1))
	commands := []string{
		"CAPABILITY", "LISTSCRIPTS", "NOOP", "NOOP \"tag\"", "HAVESPACE \"BOX\" 100", "HAVESPACE \"BOX\" 9000000", "PUTSCRIPT \"BOX\" {}", "PUTSCRIPT \"BOX\" \"keep;\"",
		"PUTSCRIPT {}", "CHECKSCRIPT {}", "CHECKSCRIPT \"discard\"", "SETACTIVE \"BOX\"", "SETACTIVE \"none\"", "SETACTIVE \"\"", "GETSCRIPT \"BOX\"", "GETSCRIPT \"none\"",
		"GETSCRIPT {}", "RENAMESCRIPT \"BOX\" \"BOX2\"", "RENAMESCRIPT \"BOX2\" \"BOX\"", "DELETESCRIPT \"BOX\"", "DELETESCRIPT \"BOX\u00e4\"", "PUTSCRIPT \"BOX\u00e4\" {}",
	}
	var said strings.Builder
	for range 40 {
		command := strings.ReplaceAll(commands[r.IntN(len(commands))], "BOX", box)
		before, _, ok := strings.Cut(command, "{}")
		if ok {
			text := strings.Repeat("# UNAUTHENTICATE\r\nkeep;\r\n", r.IntN(400))
			if r.IntN(3) == 0 {
				text += "nonsense\r\n"
			}
			if strings.HasPrefix(command, "GETSCRIPT") || command == "PUTSCRIPT {}" {
				text = box
			}
			command = fmt.Sprintf("%s{%d+}\r\n%s", before, len(text), text)
			if before == "PUTSCRIPT " {
				command += " {5+}\r\nkeep;"
			}
		}
		said.WriteString(command + "\r\n")
	}
	said.WriteString("NOOP \"the end\"\r\nLOGOUT\r\n")
	go func() {
		for words := said.String(); words != ""; {
			n := min(len(words), 1+r.IntN(5000))
			io.WriteString(k, words[:n])
			words = words[n:]
		}
	}()
	return k.Rest()
}

// A hostile client's ways to have the rest of a command read as one more, each of which Pigeonhole falls for.
func TestNoWayRound(t *testing.T) {
	t.Parallel()
	dovecot := testlab.Dovecot(t, testlab.Sieve())
	d := serve(t, toDovecot(dovecot))
	const way = "NOOP \"way\"\r\n"
	for name, said := range map[string]string{
		"an unknown command":      "UNAUTHENTICATE {12+}\r\n" + way + "\r\n",
		"a name that is no UTF-8": "GETSCRIPT {15+}\r\n\xff\r\n" + way + "\r\n",
		"... in quotes":           "PUTSCRIPT \"\xff\" {12+}\r\n" + way + "\r\n",
		"an escape that is none":  "PUTSCRIPT \"\\a\" {12+}\r\n" + way + "\r\n",
	} {
		k := d.Dial(t)
		login(t, k, testlab.Alice)
		k.Send("%sNOOP \"end\"\r\nLOGOUT\r\n", said)
		got := k.Rest()
		if strings.Contains(got, "way") || !strings.HasPrefix(got, "NO ") || !strings.Contains(got, `OK (TAG "end")`) {
			t.Errorf("%s: %q", name, got)
		}
		direct := doortest.Dial(t, dovecot.Sieve)
		answer(direct)
		direct.Send("AUTHENTICATE \"PLAIN\" \"%s\"\r\n", b64(testlab.Alice+"\x00"+dovecot.MasterUser+"\x00"+dovecot.MasterPassword))
		answer(direct)
		direct.Send("%sLOGOUT\r\n", said)
		if got := direct.Rest(); !strings.Contains(got, `OK (TAG "way")`) {
			t.Errorf("%s: without the gateway %q; this test shows nothing any more", name, got)
		}
	}
}

func TestDovecotIsAsked(t *testing.T) {
	t.Parallel()
	dovecot := testlab.Dovecot(t, testlab.Sieve())
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	list, err := sieveproxy.Ask(ctx, routeToDovecot(dovecot, testlab.Alice))
	if err != nil || !list.HasWord("SIEVE", "fileinto") || !list.HasWord("NOTIFY", "mailto") || !list.Has("MAXREDIRECTS") || len(list) != 3 {
		t.Errorf("Ask = %v, %v", list, err)
	}
	if err := sieveproxy.Probe(ctx, routeToDovecot(dovecot, testlab.Alice)); err != nil {
		t.Errorf("Probe: %v", err)
	}
	outside := routeToDovecot(dovecot, testlab.Alice)
	outside.Open = nil
	if err := sieveproxy.Probe(ctx, outside); err != nil {
		t.Errorf("Probe without a credential: %v", err)
	}
	wrong := routeToDovecot(dovecot, testlab.Alice)
	wrong.Open = func(context.Context) (protocols.Credential, error) {
		return protocols.Credential{Authzid: testlab.Alice, Authcid: "gateway", Password: []byte("wrong")}, nil
	}
	if err := sieveproxy.Probe(ctx, wrong); !errors.Is(err, protocols.ErrCredential) || !strings.Contains(err.Error(), "password_file") {
		t.Errorf("Probe with a wrong password: %v", err)
	}
	if err := sieveproxy.Probe(ctx, routeToDovecot(dovecot, "nobody@example.test")); !strings.Contains(fmt.Sprint(err), "the account nobody@example.test must exist") {
		t.Errorf("Probe for nobody: %v", err)
	}
}

// A session is told goodbye behind an answer, in good order only when all are given; or cut, but never in the middle of a script.
func TestGoodbyeInASession(t *testing.T) {
	t.Parallel()
	dovecot := testlab.Dovecot(t, testlab.Sieve())
	sessions := &live.Registry{}
	d := serve(t, toDovecot(dovecot), func(d *doortest.Door) { d.Sessions = sessions })
	big := bytes.Repeat([]byte("# a line of a long script\r\n"), 30000)
	begin := func() *doortest.Client {
		k := d.Dial(t)
		login(t, k, testlab.Alice)
		return k
	}
	idle, reading, storing := begin(), begin(), begin()
	reading.Send("PUTSCRIPT \"big\" {%d+}\r\n%s\r\n", len(big), big)
	if got := answer(reading); !strings.HasPrefix(got, "OK") {
		t.Fatalf("PUTSCRIPT: %q", got)
	}
	storing.Send("PUTSCRIPT \"more\" {%d+}\r\n%s", len(big), big[:len(big)-10])
	idle.Send("NOOP\r\n")
	answer(idle)
	const goodbye = "BYE (TRYLATER) \"Shutting down; please connect again.\"\r\n"
	go sessions.Drain(func(string) bool { return true }, 0)
	if got := idle.Rest(); got != goodbye {
		t.Errorf("between commands: %q", got)
	}
	storing.Send("%s\r\n", big[len(big)-10:])
	if got := storing.Rest(); got != "OK \"PUTSCRIPT completed.\"\r\n"+goodbye {
		t.Errorf("in a script: %q", got)
	}
	if got := reading.Rest(); got != goodbye {
		t.Errorf("behind a script: %q", got)
	}

	revoked, cut := begin(), begin()
	cut.Send("GETSCRIPT \"big\"\r\n")
	fmt.Fscanln(cut.R)
	revoked.Send("PUTSCRIPT \"x\" {100+}\r\nkeep;")
	time.Sleep(100 * time.Millisecond) // until it is there
	<-sessions.Review(1, func(authstore.Grant) error { return errors.New("revoked") })
	if got := revoked.Rest(); !strings.HasPrefix(got, "BYE (TRYLATER) ") {
		t.Errorf("revoked in a script: %q", got)
	}
	if rest, _ := io.ReadAll(cut.R); strings.Contains(string(rest), "BYE") && !strings.Contains(string(rest), "OK \"Getscript completed.\"\r\nBYE") {
		t.Errorf("revoked in an answer: %q", rest[max(0, len(rest)-100):])
	}
}
