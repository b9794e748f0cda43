package demo

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/emersion/go-ical"
	"github.com/emersion/go-vcard"
	webdavcal "github.com/emersion/go-webdav/caldav"
)

// Bounds of what one account may store: everything is kept in memory.
const (
	maxItem        = 1 << 20 // bytes
	maxComponents  = 1000    // in one calendar object
	maxItems       = 10_000  // in one collection
	maxCollections = 100     // in one home set
	maxDead        = 50      // properties that clients set, in one collection
	maxGone        = 1000    // deletions that one collection remembers for sync-collection
)

// The home sets, by the name they have in paths.
const (
	calendars = "calendars"
	contacts  = "contacts"
)

var allComponents = []string{"VEVENT", "VTODO", "VJOURNAL"}

// account is one address's data: its collections by home set and name.
type account map[string]map[string]*collection

// collection is a calendar or an address book.
type collection struct {
	home       string
	components []string           // what a calendar takes
	dead       map[xml.Name]*node // properties that clients set
	items      map[string]*item

	id    string            // random: a collection made anew under an old name has other sync tokens
	seq   uint64            // counts the changes of items
	gone  map[string]uint64 // deleted items, with the number of the change
	floor uint64            // deletions up to here may be forgotten: sync tokens from before are no longer good
}

// item is an event, a to-do or a contact. It is never changed, but replaced.
type item struct {
	raw       []byte // as the client sent it
	etag      string // strong, with its quotes
	component *ical.Component
	uid       string
	seq       uint64 // of the change that brought it
	modified  time.Time
}

// newAccount makes the home sets and the samples in them.
func newAccount(s *samples) (account, error) {
	a := account{calendars: {}, contacts: {}}
	for _, sample := range sampleCollections {
		c := newCollection(sample.home)
		a[sample.home][sample.name] = c
		c.dead[dav("displayname")] = text(dav("displayname"), sample.title)
		if sample.color != "" {
			name := xml.Name{Space: appleSpace, Local: "calendar-color"}
			c.dead[name] = text(name, sample.color)
		}
		if sample.components != nil {
			c.components = sample.components
		}
		raws, err := s.items(sample)
		if err != nil {
			return nil, err
		}
		for _, raw := range raws {
			it, err := c.parse(raw)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", sample.file, err)
			}
			local, _, _ := strings.Cut(it.uid, "@")
			c.put(local+c.extension(), it)
		}
	}
	return a, nil
}

func newCollection(home string) *collection {
	return &collection{
		home:       home,
		components: allComponents,
		dead:       make(map[xml.Name]*node),
		items:      make(map[string]*item),
		id:         strings.ToLower(rand.Text()),
		gone:       make(map[string]uint64),
	}
}

func (c *collection) extension() string {
	if c.home == contacts {
		return ".vcf"
	}
	return ".ics"
}

// contentType of its items.
func (c *collection) contentType() string {
	if c.home == contacts {
		return vcard.MIMEType + "; charset=utf-8"
	}
	return ical.MIMEType + "; charset=utf-8"
}

// errComponent says that a calendar does not take this kind of component.
var errComponent = errors.New("the calendar does not take this kind of component")

// parse checks what is to become an item.
func (c *collection) parse(raw []byte) (*item, error) {
	if !utf8.Valid(raw) || bytes.ContainsFunc(raw, notXML) { // it could not be told in a report
		return nil, errors.New("not UTF-8 text")
	}
	sum := sha256.Sum256(raw)
	it := &item{raw: raw, etag: `"` + hex.EncodeToString(sum[:16]) + `"`, modified: time.Now()}
	if c.home == contacts {
		return it, it.parseCard()
	}
	if err := it.parseCalendar(); err != nil {
		return nil, err
	}
	for _, child := range it.component.Children {
		if child.Name != ical.CompTimezone && !slices.Contains(c.components, child.Name) {
			return nil, errComponent
		}
	}
	return it, nil
}

// notXML reports the control characters that XML 1.0 can't hold.
func notXML(r rune) bool {
	return r < ' ' && r != '\t' && r != '\r' && r != '\n' || r == 0xFFFE || r == 0xFFFF
}

func (it *item) parseCalendar() error {
	if bytes.Count(bytes.ToUpper(it.raw), []byte("BEGIN:")) > maxComponents { // the decoder recurses
		return fmt.Errorf("more than %d components", maxComponents)
	}
	decoder := ical.NewDecoder(bytes.NewReader(it.raw))
	cal, err := decoder.Decode()
	if err != nil {
		return err
	}
	kind, uid, err := webdavcal.ValidateCalendarObject(cal)
	if err != nil {
		return err
	}
	if kind == "" || uid == "" {
		return errors.New("no component with a UID")
	}
	it.component, it.uid = cal.Component, uid
	return nil
}

// parseCard makes a component of a card, so that one matcher serves all queries.
func (it *item) parseCard() error {
	card, err := vcard.NewDecoder(bytes.NewReader(it.raw)).Decode()
	if err != nil {
		return err
	}
	it.uid = card.Value(vcard.FieldUID)
	it.component = ical.NewComponent("VCARD")
	for name, fields := range card {
		for _, f := range fields {
			it.component.Props.Add(&ical.Prop{Name: name, Params: ical.Params(f.Params), Value: f.Value})
		}
	}
	return nil
}

// holder returns the name of another item that has the UID.
func (c *collection) holder(uid, besides string) (name string, found bool) {
	for name, it := range c.items {
		if uid != "" && it.uid == uid && name != besides {
			return name, true
		}
	}
	return "", false
}

func (c *collection) put(name string, it *item) {
	c.seq++
	it.seq = c.seq
	c.items[name] = it
	delete(c.gone, name)
}

func (c *collection) remove(name string) {
	c.seq++
	delete(c.items, name)
	c.gone[name] = c.seq
	if len(c.gone) > maxGone {
		oldest := c.seq
		for _, seq := range c.gone {
			oldest = min(oldest, seq)
		}
		maps.DeleteFunc(c.gone, func(_ string, seq uint64) bool { return seq == oldest })
		c.floor = oldest
	}
}

// token names the state after change seq; it has to be a URI (RFC 6578 section 4).
func (c *collection) token(seq uint64) string { return fmt.Sprintf("data:,%s-%d", c.id, seq) }

// since returns the number of the change that a token names.
func (c *collection) since(token string) (seq uint64, known bool) {
	digits, found := strings.CutPrefix(token, "data:,"+c.id+"-")
	seq, err := strconv.ParseUint(digits, 10, 64)
	return seq, found && err == nil && c.floor <= seq && seq <= c.seq
}

// change is one item that came, changed or went.
type change struct {
	name string
	seq  uint64
	item *item // nil: it is gone
}

// changes lists what happened after a change, in that order. From the beginning, nothing is told of what is gone.
func (c *collection) changes(after uint64, initial bool) []change {
	var list []change
	for name, it := range c.items {
		if it.seq > after || initial {
			list = append(list, change{name, it.seq, it})
		}
	}
	for name, seq := range c.gone {
		if seq > after && !initial {
			list = append(list, change{name, seq, nil})
		}
	}
	slices.SortFunc(list, func(a, b change) int { return int(a.seq) - int(b.seq) })
	return list
}
