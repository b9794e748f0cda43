package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postern/authstore/secret"
)

// StormOptions are the wrong passwords that go on beside good logins.
type StormOptions struct {
	Attackers int  // wrong logins at a time
	Sources   int  // loopback addresses that they come from, from 127.0.1.1 on
	Misshapen bool // no app passwords at all: refused by their shape. Otherwise random app passwords with a right check letter
}

// Storm is what a storm of wrong passwords costs, and what it does to good logins: Result's own figures are those without it.
type Storm struct {
	Attackers  int      `json:"attackers"`
	Sources    int      `json:"sources"`
	Misshapen  bool     `json:"misshapen,omitzero"`
	Attempts   int      `json:"attempts"` // that were answered, while there were no good logins
	PerSecond  float64  `json:"attempts_per_second"`
	CPU        float64  `json:"attempt_cpu_us,omitzero"` // of the target's processes, for one of them
	All        int      `json:"all_attempts"`            // with good logins or without
	Later      int      `json:"try_later"`               // of all: answered with "temporarily unavailable"
	TurnedAway int      `json:"turned_away"`             // of all: not answered
	Same       Measured `json:"same_address"`            // good logins from an address that wrong ones come from
	Another    Measured `json:"another_address"`
}

// WrongPasswords measures good logins alone, wrong passwords alone, and good logins beside wrong passwords: from one of the addresses
// that these come from, and from another. Load.Count and Load.Duration bound each of the four parts. Who guesses waits for each answer, and
// goes on over the same connection until the target ends it.
func WrongPasswords(ctx context.Context, o IMAP, s StormOptions) (*Result, error) {
	if s.Attackers < 1 || s.Attackers > maxWorkers || s.Sources < 1 || s.Sources > min(s.Attackers, MaxSources-1) {
		return nil, fmt.Errorf("%d attackers at %d addresses: there must be one at each, and at most %d", s.Attackers, s.Sources, maxWorkers)
	}
	same, another := o, o
	same.Target, another.Target = o.Target.from(0, 1), o.Target.from(s.Sources, 1)
	calm, err := good(ctx, another)
	if err != nil {
		return nil, err
	}
	if calm.Operations == 0 {
		return nil, fmt.Errorf("no login succeeded before the storm: %s", calm.FirstFailure)
	}
	r := o.result("storm", calm)
	st := &storm{o: &o, s: s, target: o.Target.from(0, s.Sources)}
	r.Storm = &Storm{Attackers: s.Attackers, Sources: s.Sources, Misshapen: s.Misshapen}
	if err := st.alone(ctx, r.Storm); err != nil {
		return nil, err
	}
	if err := st.beside(ctx, same, &r.Storm.Same); err != nil {
		return nil, err
	}
	if err := st.beside(ctx, another, &r.Storm.Another); err != nil {
		return nil, err
	}
	r.Storm.Later, r.Storm.TurnedAway = int(st.later.Load()), int(st.away.Load())
	r.Storm.All = int(st.answered.Load()) + r.Storm.TurnedAway
	return r, st.fault()
}

// good measures good logins. That they fail in a storm is a result.
func good(ctx context.Context, o IMAP) (*Measured, error) {
	o.Load.stubborn = true
	return o.Load.run(ctx, nil, o.logins(new(resumptions)))
}

// storm is the attackers.
type storm struct {
	o      *IMAP
	s      StormOptions
	target *Target

	answered, later, away atomic.Int64
	broken                atomic.Pointer[error] // what must not be: see fault
}

// settle is how long the storm goes on before anything counts: for the first answers to come.
const settle = time.Second

// alone counts what wrong passwords cost.
func (st *storm) alone(ctx context.Context, into *Storm) error {
	end := st.begin(ctx)
	defer end()
	before, err := st.o.Target.Processes.usage()
	if err != nil {
		return err
	}
	began, answered := time.Now(), st.answered.Load()
	pause(ctx, st.o.Load.Duration)
	after, err := st.o.Target.Processes.usage()
	if err := errors.Join(err, ctx.Err()); err != nil {
		return err
	}
	into.Attempts = int(st.answered.Load() - answered)
	into.PerSecond = round(float64(into.Attempts) / time.Since(began).Seconds())
	into.CPU = round(float64((after.CPU - before.CPU).Microseconds()) / float64(max(1, into.Attempts)))
	return nil
}

// beside measures good logins in the storm.
func (st *storm) beside(ctx context.Context, o IMAP, into *Measured) error {
	defer st.begin(ctx)()
	m, err := good(ctx, o)
	if err == nil {
		*into = *m
	}
	return err
}

// begin starts the attackers, and returns when the storm blows; end ends it.
func (st *storm) begin(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	for n := range st.s.Attackers {
		all.Go(func() {
			cfg := st.target.clientTLS()
			for i := n; ctx.Err() == nil; i += st.s.Attackers {
				st.attempt(ctx, i, func() (*session, error) { return openIMAP(ctx, st.target, cfg) })
			}
		})
	}
	pause(ctx, settle)
	return func() {
		cancel()
		all.Wait()
	}
}

func (st *storm) attempt(ctx context.Context, n int, open func() (*session, error)) {
	s, err := open()
	if err != nil {
		st.turnedAway(ctx)
		return
	}
	defer s.close()
	for answers := 0; ; answers++ {
		err := s.logIn(st.o.Mechanism, Credential{Address: st.o.credential(n).Address, secret: wrong(st.s.Misshapen)})
		refused, isRefused := errors.AsType[*refusedError](err)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			err := errors.New("the target takes a wrong password")
			st.broken.CompareAndSwap(nil, &err)
			return
		case !isRefused && answers > 0: // it has had enough of us
			return
		case !isRefused:
			st.turnedAway(ctx)
			return
		}
		st.answered.Add(1)
		if strings.Contains(refused.line, "[UNAVAILABLE]") {
			st.later.Add(1)
		}
	}
}

func (st *storm) turnedAway(ctx context.Context) {
	if ctx.Err() == nil {
		st.away.Add(1)
		pause(ctx, failurePause)
	}
}

// fault is what makes the figures worthless.
func (st *storm) fault() error {
	if err := st.broken.Load(); err != nil {
		return *err
	}
	if st.answered.Load() == 0 {
		return fmt.Errorf("none of %d wrong passwords was answered; are there too many at a time, or too few addresses?", st.away.Load())
	}
	return nil
}

// wrong makes a wrong password, another one each time.
func wrong(misshapen bool) string {
	p := secret.Generate()
	if misshapen {
		return p.Reveal() + "1"
	}
	return p.Reveal()
}

func (s *Storm) lines(hasCPU bool) [][2]string {
	kind := "wrong passwords"
	if s.Misshapen {
		kind = "misshapen passwords"
	}
	lines := [][2]string{{kind, fmt.Sprintf("%s/s, %d at a time, addresses: %d", number(s.PerSecond), s.Attackers, s.Sources)}}
	if hasCPU {
		cost := &Result{Measured: Measured{Operations: s.Attempts, CPU: s.CPU}}
		lines = append(lines, [2]string{"CPU", cost.cpu("%s µs each", s.CPU)})
	}
	lines = append(lines, [2]string{"of them", fmt.Sprintf("%d of %d told to try later, %d not answered", s.Later, s.All, s.TurnedAway)})
	for _, g := range []struct {
		from string
		*Measured
	}{{"the same", &s.Same}, {"another", &s.Another}} {
		text := fmt.Sprintf("p50, p99: %s ms, %s ms", number(g.P50), number(g.P99))
		if g.Failed > 0 {
			text += fmt.Sprintf("; %d of %d failed: %s", g.Failed, g.Failed+g.Operations, cmp.Or(g.FirstFailure, "-"))
		}
		lines = append(lines, [2]string{"good logins from " + g.from, text})
	}
	return lines
}
