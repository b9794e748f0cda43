package protocols

// Tally counts what a client says before its login: who says much, or wrong things, is no app. The zero value has counted nothing.
type Tally struct{ commands, bad, refused int }

// Bounds of one connection before its login.
const (
	MaxCommands = 20
	maxBad      = 3 // as Dovecot
	maxRefused  = 3
)

// Command counts a command, and tells how many there were.
func (t *Tally) Command() int {
	t.commands++
	return t.commands
}

// Bad counts a command that is none, and tells whether it was one too many.
func (t *Tally) Bad() bool {
	t.bad++
	return t.bad >= maxBad
}

// Refused counts a refused login, unless it is our own fault, and tells whether it was one too many.
func (t *Tally) Refused(a Answer) bool {
	if !a.Ours() {
		t.refused++
	}
	return t.refused >= maxRefused
}
