package protocols

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Capability is one thing that a server says it can do: a line of EHLO (RFC 5321 section 4.1.1.1), of POP3's CAPA (RFC 2449), of
// ManageSieve's capabilities (RFC 5804 section 1.7).
type Capability struct {
	Name  string // in capitals
	Value string // what stands behind it, words with one space between; may be empty
}

// Capabilities is a server's list, in its order.
type Capabilities []Capability

// Bounds of what a backend's list may bring to clients.
const (
	maxListed = 60
	maxValue  = 1 << 10 // in bytes
)

// Add appends a line as a backend said it, unless it is none, or said already. What is not printable ASCII would end up in a line of ours.
func (c *Capabilities) Add(name, value string) {
	name, value = strings.ToUpper(name), strings.Join(strings.Fields(value), " ")
	notPrintable := func(r rune) bool { return r < ' ' || r > '~' }
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r == ' ' || notPrintable(r) }) || strings.ContainsFunc(value, notPrintable) ||
		len(*c) >= maxListed || len(name)+len(value) > maxValue || c.Has(name) {
		return
	}
	*c = append(*c, Capability{name, value})
}

// Get returns the value that stands behind a name.
func (c Capabilities) Get(name string) (value string, ok bool) {
	i := slices.IndexFunc(c, func(one Capability) bool { return one.Name == name })
	if i < 0 {
		return "", false
	}
	return c[i].Value, true
}

// Has tells whether a name stands in the list.
func (c Capabilities) Has(name string) bool {
	_, ok := c.Get(name)
	return ok
}

// HasWord tells whether a word stands behind a name, in whatever case.
func (c Capabilities) HasWord(name, word string) bool {
	value, _ := c.Get(name)
	for one := range strings.FieldsSeq(value) {
		if strings.EqualFold(one, word) {
			return true
		}
	}
	return false
}

// Without returns the first name that is not in other; empty: all are.
func (c Capabilities) Without(other Capabilities) string {
	for _, one := range c {
		if !other.Has(one.Name) {
			return one.Name
		}
	}
	return ""
}

// common is what both lists have, in the order of c. Of two numbers it is the smaller, of other values what words they share; without any
// the whole is left out.
func (c Capabilities) common(other Capabilities) Capabilities {
	if slices.Equal(c, other) {
		return c
	}
	var both Capabilities
	for _, one := range c {
		theirs, ok := other.Get(one.Name)
		if !ok {
			continue
		}
		shared := commonValue(one.Name, one.Value, theirs)
		if shared == "" && one.Value != "" && theirs != "" {
			continue
		}
		both = append(both, Capability{one.Name, shared})
	}
	return both
}

func commonValue(name, a, b string) string {
	if a == b {
		return a
	}
	n, errA := strconv.ParseUint(a, 10, 63)
	m, errB := strconv.ParseUint(b, 10, 63)
	// SIZE 0 is no limit (RFC 1870 section 4), MAXREDIRECTS 0 is none at all.
	switch unlimited := func(v string, n uint64) bool { return v == "" || n == 0 && name == "SIZE" }; {
	case (errA != nil && a != "") || (errB != nil && b != ""):
	case unlimited(a, n):
		return b
	case unlimited(b, m):
		return a
	default:
		return strconv.FormatUint(min(n, m), 10)
	}
	theirs := strings.Fields(b)
	words := slices.DeleteFunc(strings.Fields(a), func(word string) bool { return !slices.Contains(theirs, word) })
	return strings.Join(words, " ")
}

// Offers knows what the backends of one protocol can do, for a client to be told before it has said who it is: what all of them have. It
// asks them at the start and every minute; each login teaches it besides. A list shrinks at once, and grows when a backend has
// not said otherwise for five minutes: behind one address there may be several servers. Goroutines may share it.
type Offers struct {
	backends []string
	log      *slog.Logger
	asked    chan struct{} // closed when each backend has been asked once, or has taken too long

	mu     sync.Mutex // guards the fields below
	known  map[string]*offer
	common Capabilities
}

// offer is what one backend has said.
type offer struct {
	now, before Capabilities // in this window of time, and in the one before it
	since       time.Time    // when this one began
	said        string       // last, at a login
	read        Capabilities // what that says
}

const (
	askAgain    = time.Minute
	askTime     = 15 * time.Second // for one answer
	firstAnswer = 3 * time.Second  // so long clients wait for the first answers of all
	offerWindow = 5 * time.Minute
)

// NewOffers knows nothing yet of the backends with these names. log is told which of them can't be asked.
func NewOffers(log *slog.Logger, backends ...string) *Offers {
	return &Offers{backends: backends, log: log, asked: make(chan struct{}), known: make(map[string]*offer)}
}

// Watch asks the backends until ctx ends. ask returns nothing and no error where a backend can't be asked now.
func (o *Offers) Watch(ctx context.Context, ask func(ctx context.Context, backend string) (Capabilities, error)) {
	first := time.AfterFunc(firstAnswer, func() { close(o.asked) })
	silent := make(map[string]bool)
	for {
		o.askAll(ctx, ask, silent)
		if first.Stop() {
			close(o.asked)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(askAgain):
		}
	}
}

func (o *Offers) askAll(ctx context.Context, ask func(ctx context.Context, backend string) (Capabilities, error), silent map[string]bool) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	errs := make([]error, len(o.backends))
	var all sync.WaitGroup
	for i, backend := range o.backends {
		all.Go(func() {
			list, err := ask(ctx, backend)
			if errs[i] = err; err == nil && list != nil {
				o.Learn(backend, list)
			}
		})
	}
	all.Wait()
	for i, backend := range o.backends {
		if errs[i] != nil && !silent[backend] && ctx.Err() != context.Canceled {
			o.log.Warn("a backend does not say what it can do", "backend", backend, "err", errs[i])
		}
		silent[backend] = errs[i] != nil
	}
}

// Heard is Learn for what a backend says at each login, in its own words: they are read where they are new.
func (o *Offers) Heard(backend, said string, read func(said string) Capabilities) Capabilities {
	o.mu.Lock()
	k := o.known[backend]
	same := k != nil && k.said == said
	var list Capabilities
	if same {
		list = k.read
	}
	o.mu.Unlock()
	if !same {
		list = read(said)
	}
	o.Learn(backend, list)
	if !same {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.known[backend].said, o.known[backend].read = said, list
	}
	return list
}

// Learn notes what a backend says now.
func (o *Offers) Learn(backend string, list Capabilities) {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	switch k := o.known[backend]; {
	case k == nil:
		o.known[backend] = &offer{now: list, before: list, since: now}
	case now.Sub(k.since) >= offerWindow:
		k.before, k.now, k.since = k.now, list, now
	case slices.Equal(k.now, list):
		return
	default:
		k.now = k.now.common(list)
	}
	o.common = nil
	first := true
	for _, name := range o.backends {
		k := o.known[name]
		if k == nil {
			continue
		}
		list := k.before.common(k.now)
		if !first {
			list = o.common.common(list)
		}
		o.common, first = list, false
	}
}

// Common is what all backends have that have ever answered, in the order of the first. It is not to be changed. At the very start it
// waits a little for their answers.
func (o *Offers) Common(ctx context.Context) Capabilities {
	select {
	case <-o.asked:
	case <-ctx.Done():
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.common
}
