package doortest

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"postern/authstore"
	"postern/protocols"
)

// TokenDialogue is what a backend that is logged in to with a token says and wants to hear, as Scripted has it, and what comes of it.
type TokenDialogue struct {
	Script  string
	Token   string // default: "token"
	Quirks  protocols.Quirks
	Refused bool   // the backend refuses the token
	Err     string // what the log is told among other things; empty: the login succeeds
}

// TokenDialogues runs each against a front door: logIn logs alice@example.test in and returns the answer, which must begin with in, or be later where the
// backend does not let in. The token's giver is told of refusals and of nothing else, and the log is not told the token.
func TokenDialogues(t *testing.T, door protocols.FrontDoor, dialogues map[string]TokenDialogue, logIn func(k *Client) string, in, later string) {
	for name, tt := range dialogues {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tt.Token == "" {
				tt.Token = "token"
			}
			address, strange := Scripted(t, tls.Certificate{}, tt.Script)
			var refused atomic.Int32
			d := Serve(t, door, func(d *Door) {
				d.Routes = func(g authstore.Grant) (*protocols.Route, error) {
					return &protocols.Route{Backend: Backend, Network: "tcp", Address: address, Login: g.Address, Bearer: true, Quirks: tt.Quirks,
						Open: func(context.Context) (protocols.Credential, error) {
							return protocols.Credential{Authcid: g.Address, Password: []byte(tt.Token), Refused: func() { refused.Add(1) }}, nil
						}}, nil
				}
			})
			k := d.Dial(t)
			got := logIn(k)
			select {
			case line := <-strange:
				t.Errorf("the backend heard %q", line)
			default:
			}
			e := <-d.Logins
			switch {
			case tt.Err == "" && (!strings.HasPrefix(got, in) || e.Err != nil):
				t.Errorf("got %q, %v; want %q", got, e.Err, in)
			case tt.Err != "" && (got != later || e.Err == nil || !strings.Contains(e.Err.Error(), tt.Err)):
				t.Errorf("got %q, %v; want %q, %q", got, e.Err, later, tt.Err)
			}
			if n := refused.Load(); n > 1 || (n == 1) != tt.Refused || errors.Is(e.Err, protocols.ErrCredential) != tt.Refused {
				t.Errorf("told of %d refusals, want some: %v; %v", n, tt.Refused, e.Err)
			}
			if e.Err != nil && (strings.Contains(e.Err.Error(), tt.Token+"\x01") || strings.Contains(e.Err.Error(), "dXNlcj") || strings.Contains(e.Err.Error(), "bixhP")) {
				t.Errorf("the error shows the token: %v", e.Err)
			}
		})
	}
}
