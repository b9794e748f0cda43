package portal

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"postern/authstore"
	"postern/gateway/live"
)

const (
	historyDays  = 90 // how far back an app password's page looks
	detailEvents = 10 // of its events that its page shows
)

// detailData is what the template detail.html shows.
type detailData struct {
	entry
	Note     string
	Sessions []live.Session
	Clients  []authstore.Usage
	Days     []dayCount
	Busiest  int64 // logins on the busiest day
	Events   []line
}

// dayCount is one day of an app password.
type dayCount struct {
	Day             time.Time
	Count, Failures int64
}

func (s *Server) detail(v *visit) error {
	p, err := v.password()
	if err != nil {
		return err
	}
	d := detailData{entry: v.entry(p, 0), Sessions: s.sessionsOf(p)}
	d.Live = len(d.Sessions)
	if v.r.URL.Query().Has("saved") {
		d.Note = v.text.Say("detail.saved")
	}
	ctx := v.r.Context()
	if d.Clients, err = s.o.Accounts.Usage(ctx, p.ID); err != nil {
		return err
	}
	days, err := s.o.Accounts.UsageDays(ctx, p.ID, time.Now().Add(-historyDays*day))
	if err != nil {
		return err
	}
	d.Days = byDay(days)
	for _, one := range d.Days {
		d.Busiest = max(d.Busiest, one.Count+one.Failures)
	}
	events, err := s.o.Accounts.Events(ctx, authstore.EventQuery{Account: p.Account, Password: p.ID, Limit: detailEvents})
	if err != nil {
		return err
	}
	d.Events = v.lines(events, map[authstore.PasswordID]authstore.AppPassword{p.ID: p})
	return v.show(http.StatusOK, "detail.html", d, nil)
}

func (s *Server) sessionsOf(p authstore.AppPassword) []live.Session {
	if s.o.Sessions == nil {
		return nil
	}
	return s.o.Sessions.List(live.Selection{Account: p.Account, Password: p.ID})
}

// byDay adds up what the clients did each day; the order stays.
func byDay(list []authstore.UsageDay) []dayCount {
	var days []dayCount
	for _, u := range list {
		if n := len(days); n == 0 || !days[n-1].Day.Equal(u.Day) {
			days = append(days, dayCount{Day: u.Day})
		}
		last := &days[len(days)-1]
		last.Count += u.Count
		last.Failures += u.Failures
	}
	return days
}

// editForm is what the template edit.html shows.
type editForm struct {
	terms
	entry
}

func (s *Server) editPage(v *visit) error {
	f, err := s.newEditForm(v)
	if err != nil {
		return err
	}
	f.Named, f.Choice = f.Label, "keep"
	var networks []string
	for _, n := range f.Networks {
		networks = append(networks, networkText(n))
	}
	f.From = strings.Join(networks, "\n")
	return v.form("edit.html", f, nil)
}

// newEditForm is the form of an app password that can be changed. The page of one that can't says so.
func (s *Server) newEditForm(v *visit) (editForm, error) {
	p, err := v.password()
	if err != nil {
		return editForm{}, err
	}
	t, err := v.newTerms(p.Created, time.Now())
	t.had = p.Networks
	f := editForm{t, v.entry(p, 0)}
	f.Keeps, f.Ends = true, p.Expires
	if !f.Active() {
		return editForm{}, seeOther(f.Path())
	}
	return f, err
}

func (s *Server) edit(v *visit) error {
	f, err := s.newEditForm(v)
	if err != nil {
		return err
	}
	e := authstore.PasswordEdit{Networks: v.readTerms(&f.terms), Expires: f.Expires}
	if f.Choice != "keep" || f.Until != "" {
		e.Expires = v.readExpiry(&f.terms, f.Created, time.Now())
	}
	e.Label = f.Named
	if len(f.Wrong) > 0 {
		return v.form("edit.html", f, refused("words.look"))
	}
	if err := v.confirm(); err != nil {
		return v.form("edit.html", f, err)
	}
	c, err := v.accounts().EditPassword(v.r.Context(), f.ID, e)
	switch {
	case errors.Is(err, authstore.ErrNotActive): // it ended meanwhile
		return seeOther(f.Path())
	case err != nil:
		return err
	case len(c.Unconfirmed) > 0:
		d := doneData{Title: v.text.Say("detail.saved"), Text: v.unconfirmed(c, "edit"), Back: f.Path()}
		return v.show(http.StatusOK, "done.html", d, nil)
	}
	return seeOther(f.Path() + "?saved")
}
