package relay

import (
	"errors"
	"io"
	"sync"
	"testing"
	"time"
)

// A peer that takes nothing does not keep a session that must end: it is over within a second, whatever waits for whom.
func TestStalledSessionsEndInTime(t *testing.T) {
	var all sync.WaitGroup
	for kind, startOver := range map[string]func(testing.TB, *Relay, Pair) *ends{"plain": startTCP, "TLS": startTLS} {
		for name, stall := range map[string]func(*ends){
			"parked":             func(*ends) {},
			"client reads none":  func(e *ends) { go io.Copy(e.backend, endless("line\n")) },
			"nor a whole line":   func(e *ends) { go io.Copy(e.backend, endless("line")) },
			"nor its refusals":   func(e *ends) { go io.Copy(e.client, endless("no\n")) },
			"backend reads none": func(e *ends) { go io.Copy(e.client, endless("line\n")) },
			"both": func(e *ends) {
				go io.Copy(e.backend, endless("line"))
				go io.Copy(e.client, endless("line\n"))
			},
		} {
			for opaque, guard := range map[string]Guard{"guarded": newLines(), "opaque": nil} {
				e := startOver(t, &Relay{Park: parkSoon, Linger: 10 * time.Millisecond}, Pair{Guard: guard})
				all.Go(func() { // not a subtest: few of these run at a time, and each waits
					stall(e)
					time.Sleep(200 * time.Millisecond) // buffers are full
					began := time.Now()
					e.End(errors.New("revoked"))
					select {
					case <-e.result:
						if after := time.Since(began); after > time.Second {
							t.Errorf("%s, %s, %s: after %v", kind, name, opaque, after)
						}
					case <-time.After(10 * time.Second):
						t.Errorf("%s, %s, %s: it goes on", kind, name, opaque)
					}
				})
			}
		}
	}
	all.Wait()
}

// endless is a peer that says one thing for ever.
type endless string

func (s endless) Read(p []byte) (n int, err error) {
	for n+len(s) <= len(p) {
		n += copy(p[n:], s)
	}
	return n, nil
}
