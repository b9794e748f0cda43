package portal

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"postern/authstore"
	"postern/gateway/texts"
)

// listTime is how long a page waits for the list of somebody's calendars and address books.
const listTime = 3 * time.Second

// ErrNotServed: an account has no server for a kind of collections.
var ErrNotServed = errors.New("no server for that kind")

// Collection is a calendar or an address book as its server tells of it. Its title may be anything.
type Collection struct{ Name, Title string }

// single is what a form asks of one kind: all, or which.
type single struct {
	Kind  string
	Only  bool // single ones are chosen
	Boxes []box
	Down  bool // they can't be listed

	ticked []string // names, as they were sent
	opened bool     // by the scopes that were chosen
	none   bool     // the account has no server for them
}

// box is a calendar or an address book to tick.
type box struct {
	Name, Title string
	Place       string // its name, where the title does not tell it from another
	Ticked      bool
}

// Narrowed reports whether the form has single ones chosen, or something is wrong with that.
func (f createForm) Narrowed() bool {
	return slices.ContainsFunc(f.Single, func(one *single) bool { return one.Only || len(one.ticked) > 0 || f.Wrong[one.Kind] != "" })
}

// newSingle is the form's part for each kind that can be opened here.
func (s *Server) newSingle() (list []*single) {
	if s.o.Collections == nil {
		return nil
	}
	for _, kind := range authstore.CollectionKinds(s.o.Served) {
		list = append(list, &single{Kind: kind})
	}
	return list
}

// offer asks which calendars and address books there are, once for a form. Where a server does not answer, the form says so.
func (v *visit) offer(f *createForm) {
	if f.listed {
		return
	}
	f.listed = true
	ctx, done := context.WithTimeout(v.r.Context(), listTime)
	defer done()
	var asking sync.WaitGroup
	for _, one := range f.Single {
		asking.Go(func() { v.ask(ctx, one) })
	}
	asking.Wait()
	f.Single = slices.DeleteFunc(f.Single, func(one *single) bool { return one.none })
}

// ask asks for those of one kind.
func (v *visit) ask(ctx context.Context, one *single) {
	found, err := v.s.o.Collections(ctx, v.about().Address, one.Kind)
	switch {
	case errors.Is(err, ErrNotServed) && !(one.opened && one.Only): // who chose some must not get all, should a server come back
		one.none = true
		return
	case err != nil:
		if v.r.Context().Err() == nil { // else the browser has gone
			v.s.o.Log.Warn("collections can't be listed", "proto", Protocol, "account", int64(v.about().Account), "kind", one.Kind, "err", err)
		}
		one.Down = true
		for _, name := range one.ticked { // what was chosen stays, by the names alone
			one.Boxes = append(one.Boxes, box{Name: name, Title: texts.Title("", name), Ticked: true})
		}
		return
	}
	one.Boxes = boxes(found)
	for i := range one.Boxes {
		one.Boxes[i].Ticked = slices.Contains(one.ticked, one.Boxes[i].Name)
	}
}

// boxes are collections by their titles.
func boxes(found []Collection) (list []box) {
	times := make(map[string]int)
	for _, c := range found {
		b := box{Name: c.Name, Title: texts.Title(c.Title, c.Name)}
		list = append(list, b)
		times[b.Title]++
	}
	for i := range list {
		if b := &list[i]; times[b.Title] > 1 {
			b.Place = texts.Title("", b.Name)
		}
	}
	slices.SortFunc(list, func(a, b box) int {
		return cmp.Or(texts.ByTitle(a.Title, b.Title), cmp.Compare(a.Name, b.Name))
	})
	return list
}

// readSingle reads which calendars and address books were chosen, for scopes. What is chosen of a kind that they do not open counts for
// nothing: the page asks of each kind, whatever stands above.
func (v *visit) readSingle(f *createForm, scopes authstore.Scopes) (list []authstore.Collection, titles authstore.Titles) {
	for _, one := range f.Single {
		choice := v.field(one.Kind)
		one.Only, one.ticked = choice == "only", v.r.PostForm[one.Kind+"_only"]
		if one.opened = scopes.Any(authstore.KindScopes(one.Kind)); one.opened && !one.Only && choice != "all" && choice != "" {
			f.Wrong[one.Kind] = v.text.Say("single.wrong")
		}
		if len(one.ticked) > authstore.MaxCollections {
			one.ticked = one.ticked[:authstore.MaxCollections+1] // which is refused below; a page need not repeat more
		}
	}
	if !slices.ContainsFunc(f.Single, func(one *single) bool { return one.opened && (one.Only || len(one.ticked) > 0) }) {
		return nil, nil
	}
	v.offer(f)
	titles = make(authstore.Titles)
	var last *single // that is narrowed
	for _, one := range f.Single {
		if !one.opened {
			continue
		}
		if wrong := v.wrongSingle(one); wrong != "" {
			f.Wrong[one.Kind] = wrong
		}
		if one.Only {
			last = one
		}
		for _, b := range one.Boxes {
			if b.Ticked && one.Only {
				c := authstore.Collection{Kind: one.Kind, Name: b.Name}
				list = append(list, c)
				titles[c] = b.Title
			}
		}
	}
	for _, kind := range authstore.CollectionKinds(scopes) { // what was left at all is named too
		if !slices.ContainsFunc(list, func(c authstore.Collection) bool { return c.Kind == kind }) {
			list = append(list, authstore.Collection{Kind: kind, Name: authstore.EveryCollection})
		}
	}
	if _, _, err := authstore.Narrow(scopes, list); err != nil && last != nil && f.Wrong[last.Kind] == "" { // all of them together
		f.Wrong[last.Kind] = v.text.Say("single.many", authstore.MaxCollections)
	}
	return list, titles
}

// wrongSingle says what is wrong with a choice; empty: nothing.
func (v *visit) wrongSingle(one *single) string {
	switch {
	case !one.Only && len(one.ticked) > 0:
		return v.text.Say("single.unchosen_" + one.Kind)
	case !one.Only:
		return ""
	case len(one.ticked) == 0:
		return v.text.Say("single.missing_" + one.Kind)
	case len(one.ticked) > authstore.MaxCollections:
		return v.text.Say("single.many", authstore.MaxCollections)
	case one.Down:
		return v.text.Say("single.unsure_" + one.Kind)
	}
	for _, name := range one.ticked {
		if !slices.ContainsFunc(one.Boxes, func(b box) bool { return b.Name == name }) {
			return v.text.Say("single.foreign_"+one.Kind, texts.Title("", name))
		}
	}
	return ""
}

// Kinds lists the kinds of collections that scopes open, for the script.
func (p view) Kinds(s authstore.Scopes) string {
	return strings.Join(authstore.CollectionKinds(s), " ")
}

// KindsOf is Kinds of one scope's name.
func (p view) KindsOf(scope string) string {
	s, err := authstore.ParseScopes(scope)
	if err != nil {
		return ""
	}
	return p.Kinds(s)
}
