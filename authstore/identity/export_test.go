package identity

import (
	"context"
	"testing"
)

// realCost is what Argon2id costs outside of the tests, which check hundreds of passwords, with the race detector at ten times the price.
var realCost = cost

func init() { cost.Memory, cost.Iterations = 64, 1 }

// The least that OWASP asks of Argon2id.
func TestCost(t *testing.T) {
	if realCost.Memory < 19*1024 || realCost.Iterations < 2 || realCost.SaltLength < 16 || realCost.KeyLength < 32 {
		t.Errorf("Argon2id runs with %+v", realCost)
	}
}

// HoldStrangers takes all places that strangers have.
func (p *People) HoldStrangers() (free func()) {
	p.waiting.Acquire(context.Background(), maxWaiting)
	p.strangers.Acquire(context.Background(), cores)
	return func() {
		p.waiting.Release(maxWaiting)
		p.strangers.Release(cores)
	}
}
