package protocols

// Deepen makes room on a goroutine's stack at once, while there is little on it. It would grow step by step on the way to a backend, and be
// copied each time with all that stands on it: a tenth of a login's CPU. A front door calls it when a client has said something: those that
// say nothing stay small.
func Deepen() { deepen(0) }

//go:noinline
func deepen(i int) byte {
	var room [13 << 10]byte
	return room[i]
}
