package command

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"postern/authstore"
	"postern/gateway"
	"postern/gateway/view"
	"postern/protocols"
	"postern/protocols/davproxy"
)

// opens says on one line what an app password opens.
func opens(p authstore.AppPassword) string {
	if len(p.Collections) == 0 {
		return p.Scopes.String()
	}
	const most = 3 // a line of a table has no room for more
	text := p.Scopes.String() + "; only " + onlyWords(p, most)
	if more := len(p.Collections) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// onlyWords names the first of the single collections that an app password opens; empty: it is not narrowed.
func onlyWords(p authstore.AppPassword, most int) string {
	var words []string
	for _, c := range p.Collections[:min(most, len(p.Collections))] {
		word := c.String()
		if title := p.Titles[c]; title != "" && title != c.Name {
			word += " (" + title + ")"
		}
		words = append(words, word)
	}
	return printable(strings.Join(words, ", "))
}

func accountCollections(e *env) *cobra.Command {
	return e.jsonFlag(&cobra.Command{
		Use:   "collections ADDRESS",
		Short: "List an account's calendars and address books, as its backend tells of them",
		Long: `Asks the backend which calendars and address books an account has. An app password can be made for single ones: "postern password create --only".
A name stays when the calendar is given another title.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.withAccount(c, args[0], func(d *gateway.Desk, a authstore.Account) error {
				views, rows, served := []view.Collection{}, [][]string(nil), false
				var faults []error
				for _, kind := range authstore.CollectionKinds(authstore.NarrowedScopes) {
					list, err := d.Collections(c.Context(), a.Names[0], kind)
					if errors.Is(err, protocols.ErrNoRoute) {
						continue
					}
					served = true
					if err != nil {
						faults = append(faults, unlisted(a.Names[0], kind, err))
					}
					for _, l := range list {
						views = append(views, view.Collection{Kind: l.Kind, Name: l.Name, Title: l.Title})
						rows = append(rows, []string{l.Collection.String(), l.Title})
					}
				}
				if !served {
					return noBackend(a.Names[0], authstore.CalendarCollection)
				}
				if len(views) == 0 && len(faults) > 0 {
					return faults[0]
				}
				var err error
				switch {
				case e.json:
					err = printJSON(c.OutOrStdout(), views)
				case len(views) == 0:
					_, err = fmt.Fprintf(c.OutOrStdout(), "%s has no calendar and no address book yet; an app whose password opens all can make one\n", a.Names[0])
				default:
					err = table(c.OutOrStdout(), []string{"COLLECTION", "TITLE"}, rows)
				}
				return errors.Join(append(faults, err)...)
			})
		},
	})
}

// kindWords are what people call collections.
var kindWords = map[string]string{authstore.CalendarCollection: "calendars", authstore.ContactsCollection: "address books"}

func unlisted(address, kind string, err error) error {
	return fmt.Errorf("the %s of %s can't be listed: %w", kindWords[kind], address, err)
}

func noBackend(address, kind string) error {
	return fmt.Errorf("no backend has %s of %s; write a [[route]] with protocol = %q for its domain", kindWords[kind], address, kind)
}

// chooseCollections reads --only. What it names must be there: a name with a slip in it would open nothing, and nobody would see why.
func chooseCollections(ctx context.Context, d *gateway.Desk, address string, set authstore.Scopes, only []string) ([]authstore.Collection, authstore.Titles, error) {
	if len(only) == 0 {
		return nil, nil, nil
	}
	kinds := authstore.CollectionKinds(set)
	if len(kinds) == 0 {
		return nil, nil, &usageError{errors.New("--only is for what opens calendars or contacts")}
	}
	there := &thereIs{desk: d, address: address, kinds: kinds, listed: make(map[string][]davproxy.Listed)}
	var chosen []authstore.Collection
	titles := make(authstore.Titles)
	for _, text := range only {
		c, err := there.find(ctx, text)
		if err != nil {
			return nil, nil, err
		}
		chosen = append(chosen, c)
		if title, err := authstore.CleanLabel(there.title(c)); err == nil {
			titles[c] = title
		}
	}
	if _, _, err := authstore.Narrow(set, chosen); err != nil {
		return nil, nil, &usageError{fmt.Errorf("--only: %w", err)}
	}
	return chosen, titles, nil
}

// thereIs is what an account has at its backends, asked when it is needed.
type thereIs struct {
	desk    *gateway.Desk
	address string
	kinds   []string // that the app password opens
	listed  map[string][]davproxy.Listed
}

func (t *thereIs) of(ctx context.Context, kind string) ([]davproxy.Listed, error) {
	if list, ok := t.listed[kind]; ok {
		return list, nil
	}
	list, err := t.desk.Collections(ctx, t.address, kind)
	if errors.Is(err, protocols.ErrNoRoute) {
		return nil, noBackend(t.address, kind)
	}
	if err != nil {
		return nil, unlisted(t.address, kind, err)
	}
	t.listed[kind] = list
	return list, nil
}

// find takes a collection's kind and name, else its title.
func (t *thereIs) find(ctx context.Context, text string) (authstore.Collection, error) {
	c, err := authstore.ParseCollection(text)
	if err != nil {
		return t.titled(ctx, text)
	}
	if c.Name == authstore.EveryCollection || !slices.Contains(t.kinds, c.Kind) { // Narrow says what is wrong with the latter
		return c, nil
	}
	list, err := t.of(ctx, c.Kind)
	if err != nil {
		return c, err
	}
	for _, l := range list {
		if l.Collection == c {
			return c, nil
		}
	}
	return c, t.unknown(text, list)
}

func (t *thereIs) titled(ctx context.Context, title string) (authstore.Collection, error) {
	var all, same []davproxy.Listed
	for _, kind := range t.kinds {
		list, err := t.of(ctx, kind)
		if err != nil {
			return authstore.Collection{}, err
		}
		all = append(all, list...)
	}
	for _, l := range all {
		if strings.EqualFold(l.Title, strings.TrimSpace(title)) {
			same = append(same, l)
		}
	}
	switch len(same) {
	case 0:
		return authstore.Collection{}, t.unknown(title, all)
	case 1:
		return same[0].Collection, nil
	}
	return authstore.Collection{}, fmt.Errorf("several have the title %q; name one of them as it stands here:\n%s", printable(title), listing(same))
}

// title is what people call a collection; empty: all of a kind, which have none.
func (t *thereIs) title(c authstore.Collection) string {
	for _, l := range t.listed[c.Kind] {
		if l.Collection == c {
			return l.Title
		}
	}
	return ""
}

func (t *thereIs) unknown(text string, list []davproxy.Listed) error {
	if len(list) == 0 {
		return fmt.Errorf("%s has no calendar or address book %q, and none of its kind at all; an app whose password opens all can make one", t.address, printable(text))
	}
	once := ""
	if strings.Contains(text, ",") {
		once = " (each takes an --only of its own)"
	}
	return fmt.Errorf("%s has no calendar or address book %q%s; there are:\n%s", t.address, printable(text), once, listing(list))
}

// maxListing is how many collections an error names.
const maxListing = 20

func listing(list []davproxy.Listed) string {
	var rows [][]string
	for _, l := range list[:min(len(list), maxListing)] {
		rows = append(rows, []string{"  " + l.Collection.String(), l.Title})
	}
	if more := len(list) - maxListing; more > 0 {
		rows = append(rows, []string{fmt.Sprintf("  and %d more; \"postern account collections\" lists them all", more)})
	}
	var b strings.Builder
	table(&b, []string{"  COLLECTION", "TITLE"}, rows)
	return strings.TrimRight(b.String(), "\n")
}
