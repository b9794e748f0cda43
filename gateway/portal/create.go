package portal

import (
	"crypto/rand"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/authstore"
)

// createForm is what the template create.html shows.
type createForm struct {
	terms
	Request string
	Preset  string
	Exact   authstore.Scopes
	App     string

	Presets []authstore.Preset
	Scopes  []string
	Apps    []string
	Most    int
	Full    bool
	Single  []*single // by kind; none: nothing of theirs is served
	listed  bool
}

// Has reports whether a box is ticked.
func (f createForm) Has(scope string) bool {
	s, err := authstore.ParseScopes(scope)
	return err == nil && f.Exact.Any(s)
}

func (s *Server) createPage(v *visit) error {
	f, err := s.newCreateForm(v)
	if err != nil {
		return err
	}
	f.Request, f.Choice, f.App = rand.Text(), "never", "other"
	if f.Must {
		f.Choice = "date"
		f.Until = f.Last
		if n := len(f.Days); n > 0 {
			f.Choice, f.Until = strconv.Itoa(f.Days[n-1]), ""
		}
	}
	active, err := v.active()
	if err != nil {
		return err
	}
	f.Full = len(active) >= f.Most
	return v.createForm(f, nil)
}

// createForm shows the form, for the first time or with what it was refused for.
func (v *visit) createForm(f createForm, problem error) error {
	if !f.Full {
		v.offer(&f)
	}
	return v.form("create.html", f, problem)
}

func (s *Server) newCreateForm(v *visit) (createForm, error) {
	now := time.Now()
	t, err := v.newTerms(now, now)
	f := createForm{terms: t, Apps: appNames, Most: t.policy.Most(), Single: s.newSingle()}
	for _, p := range authstore.Presets {
		if p.ServedBy(s.o.Served) && t.policy.Opens(p.Scopes) {
			f.Presets = append(f.Presets, p)
		}
	}
	for _, name := range s.o.Served.Names() {
		if one, err := authstore.ParseScopes(name); err == nil && t.policy.Opens(one) {
			f.Scopes = append(f.Scopes, name)
		}
	}
	return f, err
}

func (s *Server) create(v *visit) error {
	f, err := s.newCreateForm(v)
	if err != nil {
		return err
	}
	r := s.readCreate(v, &f)
	if len(f.Wrong) > 0 {
		return v.createForm(f, refused("words.look"))
	}
	if err := v.confirm(); err != nil {
		return v.createForm(f, err)
	}
	p, made, err := v.accounts().CreatePassword(v.r.Context(), r)
	var before *authstore.ErrMade
	switch {
	case errors.As(err, &before):
		return s.madeBefore(v, before.Password)
	case errors.Is(err, authstore.ErrTooMany):
		f.Full = true
		return v.createForm(f, refused("create.full_now"))
	case err != nil:
		return err
	}
	defer made.Clear()
	v.note("app password created", p.Account, "app_password", int64(p.ID))
	d := madeData{entry: v.entry(p, 0), Secret: strings.SplitAfter(made.Reveal(), "-"), Apps: v.appHelp(f.App, p.Scopes)}
	return v.show(http.StatusOK, "made.html", d, nil)
}

func (s *Server) readCreate(v *visit, f *createForm) authstore.PasswordRequest {
	networks := v.readTerms(&f.terms)
	now := time.Now()
	expires := v.readExpiry(&f.terms, now, now)
	f.Request, f.Preset, f.App = v.field("request"), v.field("preset"), v.field("app")
	if n := len(f.Request); n == 0 || n > 100 { // a form of somebody's own
		f.Request = rand.Text()
	}
	exact, err := authstore.ParseScopes(v.r.PostForm["scope"]...)
	f.Exact = exact & s.o.Served
	scopes := f.Exact
	if scopes == 0 {
		for _, p := range f.Presets {
			if p.Name == f.Preset {
				scopes = p.Scopes
			}
		}
	}
	switch {
	case scopes == 0 || err != nil:
		f.Wrong["preset"] = v.text.Say("create.preset_missing")
	case !f.policy.Opens(scopes):
		f.Wrong["preset"] = v.text.Say("create.preset_beyond")
	case scopes.Any(authstore.ScopeSchedule) && !scopes.Any(calendar):
		f.Wrong["preset"] = v.text.Say("create.schedule_alone")
	}
	collections, titles := v.readSingle(f, scopes)
	if !slices.Contains(appNames, f.App) {
		f.App = "other"
	}
	if scopes != 0 && !fits(f.App, scopes) {
		f.Wrong["app"] = v.text.Say("create.app_misfit." + f.App)
	}
	return authstore.PasswordRequest{Account: v.about().Account, Label: f.Named, Scopes: scopes, Expires: expires, Networks: networks, Request: f.Request,
		Collections: collections, Titles: titles, MadeBy: v.madeBy()}
}

// madeData is what the template made.html shows, once.
type madeData struct {
	entry
	Secret []string // by groups, so that a line breaks between them
	Apps   []appHelp
}

// madeBefore answers a form that was sent again: by a reload, say.
func (s *Server) madeBefore(v *visit, id authstore.PasswordID) error {
	p, err := v.own(id)
	if err != nil {
		return err
	}
	return v.show(http.StatusOK, "made_before.html", v.entry(p, 0), nil)
}

// Suggestions are names for app passwords to choose from. Nearly all are apps' own, in every language.
func (p view) Suggestions() []string {
	return strings.Split(p.T("create.suggestions"), "|")
}
