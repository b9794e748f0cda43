package portal

import (
	"encoding/csv"
	"html/template"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"postern/authstore"
)

const (
	historyPage  = 50
	historyBatch = 500 // of a download
)

// filters choose from the history by kinds of events, in the order of the menu.
var filters = []struct {
	Name  string
	Kinds []string
}{
	{"all", nil},
	{"passwords", []string{"password."}},
	{"sign_in", []string{"portal.", "tie."}},
	{"factors", []string{"factor.", "factors.", "recovery."}},
	{"primary", []string{"primary."}},
	{"connections", []string{"connection."}},
	{"admin", []string{"account.", "alias.", "credential.", "invitation."}},
}

// historyData is what the template history.html shows.
type historyData struct {
	Lines   []line
	Filter  string
	Filters []string
	Of      *authstore.AppPassword // nil: of all
	Next    string                 // the older events; empty: there are none
	Newest  string                 // the way back; empty: this is it
	CSV     string
}

// historyQuery reads what of the history is asked for.
func (v *visit) historyQuery() (q authstore.EventQuery, d historyData, err error) {
	asked := v.r.URL.Query()
	q.Account, d.Filter = v.about().Account, "all"
	for _, f := range filters {
		if f.Name == "connections" && v.s.o.Connections == nil {
			continue
		}
		d.Filters = append(d.Filters, f.Name)
		if f.Name == asked.Get("show") {
			q.Kinds, d.Filter = f.Kinds, f.Name
		}
	}
	if id, err := strconv.ParseInt(asked.Get("password"), 10, 64); err == nil {
		p, err := v.own(authstore.PasswordID(id))
		if err != nil {
			return q, d, err
		}
		q.Password, d.Of = p.ID, &p
	}
	if before, err := strconv.ParseInt(asked.Get("before"), 10, 64); err == nil && before > 0 {
		q.Before = before
	}
	return q, d, nil
}

// address is where the history is shown, with what chooses from it.
func (d historyData) address(path string, before int64) string {
	q := make(url.Values)
	if d.Filter != "all" {
		q.Set("show", d.Filter)
	}
	if d.Of != nil {
		q.Set("password", strconv.FormatInt(int64(d.Of.ID), 10))
	}
	if before > 0 {
		q.Set("before", strconv.FormatInt(before, 10))
	}
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

func (s *Server) history(v *visit) error {
	q, d, err := v.historyQuery()
	if err != nil {
		return err
	}
	q.Limit = historyPage + 1
	events, err := s.o.Accounts.Events(v.r.Context(), q)
	if err != nil {
		return err
	}
	d.CSV = d.address("/history.csv", 0)
	if q.Before > 0 {
		d.Newest = d.address("/history", 0)
	}
	if len(events) > historyPage {
		events = events[:historyPage]
		d.Next = d.address("/history", events[historyPage-1].ID)
	}
	named, err := v.named()
	if err != nil {
		return err
	}
	d.Lines = v.lines(events, named)
	return v.show(http.StatusOK, "history.html", d, nil)
}

// shownLine is an event as a page shows it.
type shownLine struct {
	line
	When template.HTML
	From string // where the person sat, and at which browser

	Address, Path string // of the account, where the list is of several
}

// Shown makes lines ready for the template "events".
func (p view) Shown(lines []line) []shownLine {
	var list []shownLine
	for _, l := range lines {
		one := shownLine{line: l, When: p.Time(l.At), From: p.Place(l.Client)}
		if l.Agent != "" {
			one.From = strings.Trim(one.From+" · "+p.Browser(l.Agent), " ·")
		}
		list = append(list, one)
	}
	return list
}

// named are the account's app passwords, those that have ended too.
func (v *visit) named() (map[authstore.PasswordID]authstore.AppPassword, error) {
	list, err := v.s.o.Accounts.Passwords(v.r.Context(), v.about().Account, true)
	named := make(map[authstore.PasswordID]authstore.AppPassword, len(list))
	for _, p := range list {
		named[p.ID] = p
	}
	return named, err
}

func (s *Server) historyCSV(v *visit) error {
	q, _, err := v.historyQuery()
	if err != nil {
		return err
	}
	named, err := v.named()
	if err != nil {
		return err
	}
	q.Before = 0
	return v.sendCSV(v.text.Say("history.file"), v.csvHeader(), q, func(events []authstore.Event) ([][]string, error) {
		var rows [][]string
		for _, l := range v.lines(events, named) {
			rows = append(rows, v.csvRow(l))
		}
		return rows, nil
	})
}

// sendCSV sends a table of all events of a query. Those of a batch are made rows together.
func (v *visit) sendCSV(name string, header []string, q authstore.EventQuery, rows func([]authstore.Event) ([][]string, error)) error {
	ctx := v.r.Context()
	q.Limit = historyBatch
	events, err := v.s.o.Accounts.Events(ctx, q)
	if err != nil {
		return err
	}
	v.w.Header().Set("Content-Type", "text/csv; charset=utf-8; header=present") // RFC 4180 section 3
	v.w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": name}))
	v.w.Write([]byte("\ufeff")) // without it, Excel takes the letters for another alphabet's
	w := csv.NewWriter(v.w)
	w.UseCRLF = true
	w.Write(header)
	for len(events) > 0 && err == nil {
		var list [][]string
		if list, err = rows(events); err != nil {
			break
		}
		w.WriteAll(list)
		q.Before = events[len(events)-1].ID
		if len(events) < historyBatch {
			break
		}
		events, err = v.s.o.Accounts.Events(ctx, q)
	}
	w.Flush()
	if err != nil || w.Error() != nil { // half a table must not look like a whole one
		panic(http.ErrAbortHandler)
	}
	return nil
}

func (v *visit) csvHeader() []string {
	var cells []string
	for _, name := range []string{"when", "what", "more", "actor", "address", "country", "browser"} {
		cells = append(cells, v.text.Say("history."+name))
	}
	return cells
}

func (v *visit) csvRow(l line) []string {
	client := ""
	if l.Client.IsValid() {
		client = l.Client.String()
	}
	cells := []string{l.At.In(v.zone).Format(time.RFC3339), l.Text, strings.Join(l.More, " "), l.Actor, client, v.country(l.Client), l.Agent}
	for i := range cells {
		cells[i] = inert(cells[i])
	}
	return cells
}

// formula finds what a spreadsheet could take for one: at the beginning of a cell, or behind a sign that it takes for the end of one, as
// Excel does with semicolons in many countries, whatever the quotes around them.
var formula = regexp.MustCompile(`(^|[;|\t])(["' ]*[=+\-@＝＋－＠\t\r])`)

// inert makes a cell that no spreadsheet takes for a formula: names of apps and browsers are what strangers write.
func inert(cell string) string { return formula.ReplaceAllString(cell, "$1'$2") }
