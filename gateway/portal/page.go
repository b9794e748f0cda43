package portal

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"postern/authstore/identity"
)

//go:embed templates/*.html
var templates embed.FS

// pages are the templates by file name, each with the layout and the parts around it.
type pages map[string]*template.Template

func parsePages() (pages, error) {
	layout, err := template.ParseFS(templates, "templates/layout.html", "templates/parts*.html")
	if err != nil {
		return nil, err
	}
	names, err := fs.Glob(templates, "templates/*.html")
	if err != nil {
		return nil, err
	}
	all := make(pages)
	for _, name := range names {
		t, err := layout.Clone()
		if err == nil {
			t, err = t.ParseFS(templates, name)
		}
		if err != nil {
			return nil, err
		}
		all[path.Base(name)] = t
	}
	return all, nil
}

// view is what a template sees: the visit's reader, and the page's own Data.
type view struct {
	v       *visit
	Data    any
	Problem string // why the form was not taken, in plain words; empty: it is shown for the first time
}

// show renders a page. Nothing is sent before all of it is there.
func (v *visit) show(status int, page string, data any, problem error) error {
	view := view{v: v, Data: data}
	if problem != nil && !errors.Is(problem, identity.ErrStepUp) {
		if view.Problem = v.problem(problem); view.Problem == "" {
			return problem
		}
	}
	t := v.s.pages[page]
	if t == nil {
		return fmt.Errorf("there is no page %s", page)
	}
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, "layout", view); err != nil {
		return err
	}
	v.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	v.w.WriteHeader(status)
	_, err := b.WriteTo(v.w)
	if err != nil {
		return http.ErrAbortHandler
	}
	return nil
}

// form shows a page with a form, for the first time or with what it was refused for.
func (v *visit) form(page string, data any, problem error) error {
	status := http.StatusOK
	if problem != nil {
		status = http.StatusUnprocessableEntity
	}
	return v.show(status, page, data, problem)
}

// trouble is a page that only says something.
func (v *visit) trouble(status int, title, text string, args ...any) {
	v.show(status, "trouble.html", map[string]string{"Title": v.text.Say(title), "Text": v.text.Say(text, args...)}, nil)
}

// The methods below are for templates.

// T gives a text in the reader's language.
func (p view) T(key string, args ...any) string { return p.v.text.Say(key, args...) }

// Lang is the page's language.
func (p view) Lang() string { return p.v.text.Tag.String() }

// Service is what the portal is called.
func (p view) Service() string { return p.v.s.o.Name }

// Session is who is signed in.
func (p view) Session() identity.Session { return p.v.session }

// In reports whether somebody is signed in, second factor and all.
func (p view) In() bool { return p.v.session.Stage == identity.SignedIn }

// Fresh reports whether the second factor was given a moment ago.
func (p view) Fresh() bool { return p.v.s.o.People.Fresh(p.v.session) }

// At reports whether the page lies under a path, for the menu.
func (p view) At(prefix string) bool { return strings.HasPrefix(p.v.r.URL.Path, prefix) }

// Asset is the URL of a file of ours.
func (p view) Asset(name string) string { return assetURL(name) }

// Zone names the reader's time zone.
func (p view) Zone() string { return p.v.zone.String() }

// Time writes a time for people and for programs.
func (p view) Time(t time.Time) template.HTML { return p.timeElement(t, p.v.text.Time) }

// Day writes a day likewise.
func (p view) Day(t time.Time) template.HTML { return p.timeElement(t, p.v.text.Day) }

func (p view) timeElement(t time.Time, write func(time.Time) string) template.HTML {
	if t.IsZero() {
		return template.HTML(template.HTMLEscapeString(p.T("layout.never")))
	}
	t = t.In(p.v.zone)
	return template.HTML(fmt.Sprintf(`<time datetime="%s">%s</time>`, t.Format(time.RFC3339), template.HTMLEscapeString(write(t))))
}

// Tongues lists the other languages.
func (p view) Tongues() []tongue {
	return slices.DeleteFunc(tongues(), func(t tongue) bool { return t.Tag == p.v.text.Tag.String() })
}

// Wanted is the page that the sign-in is to lead to, of those that a link may name.
func (p view) Wanted() string { return p.v.wanted() }

// Browser says in plain words what a User-Agent means.
func (p view) Browser(agent string) string { return p.v.text.Browser(agent) }

// Has reports whether the person has a second factor of a kind, so that no other is asked for. Where that can't be read, all are.
func (p view) Has(kind string) bool {
	kinds, err := p.v.factorKinds()
	return err != nil || kinds[identity.Kind(kind)]
}

// factorKinds are the kinds of the person's second factors.
func (v *visit) factorKinds() (map[identity.Kind]bool, error) {
	if v.kinds == nil {
		factors, err := v.s.o.People.Factors(v.r.Context(), v.session)
		if err != nil {
			return nil, err
		}
		v.kinds = make(map[identity.Kind]bool)
		for _, f := range factors.List {
			v.kinds[f.Kind] = true
		}
	}
	return v.kinds, nil
}

// Here is the page's own path, to come back to.
func (p view) Here() string { return p.v.r.URL.Path }
