package portal

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"postern/authstore"
)

// auditData is what the template admin_audit.html shows.
type auditData struct {
	Account, Actor string // as typed
	From, To       string // days, as YYYY-MM-DD
	Filter         string
	Filters        []string
	Lines          []auditLine
	Next, Newest   string
	CSV            string
	Wrong          string // what chooses nothing because it can't be understood
}

// auditLine is an event with the account that it is about.
type auditLine struct {
	line
	Address string // empty: the account is gone
	Path    string
}

// address is where the audit is shown, with what chooses from it.
func (d auditData) address(path string, before int64) string {
	q := make(url.Values)
	for name, value := range map[string]string{"account": d.Account, "by": d.Actor, "from": d.From, "to": d.To, "show": d.Filter} {
		if value != "" && !(name == "show" && value == "all") {
			q.Set(name, value)
		}
	}
	if before > 0 {
		q.Set("before", strconv.FormatInt(before, 10))
	}
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

// auditQuery reads what is asked for. ok is false where it chooses nothing: nobody must take an empty choice for all.
func (v *visit) auditQuery() (q authstore.EventQuery, d auditData, ok bool, err error) {
	asked := v.r.URL.Query()
	field := func(name string) string { return strings.TrimSpace(asked.Get(name)) }
	d = auditData{Account: field("account"), Actor: field("by"), From: field("from"), To: field("to"), Filter: "all"}
	for _, f := range filters {
		d.Filters = append(d.Filters, f.Name)
		if f.Name == asked.Get("show") {
			q.Kinds, d.Filter = f.Kinds, f.Name
		}
	}
	if d.Account != "" {
		a, err := v.s.o.Accounts.Get(v.r.Context(), d.Account)
		if errors.Is(err, authstore.ErrNotFound) {
			d.Wrong = v.text.Say("admin_audit.no_account", short(d.Account))
			return q, d, false, nil
		}
		if err != nil {
			return q, d, false, err
		}
		q.Account = a.ID
	}
	if q.Actor = d.Actor; q.Actor != "" && !strings.Contains(q.Actor, ":") { // an administrator's address
		q.Actor = "admin:" + strings.ToLower(q.Actor)
	}
	var wrong bool
	day := func(text string, plus int) time.Time {
		if text == "" {
			return time.Time{}
		}
		at, err := time.ParseInLocation(time.DateOnly, text, v.zone)
		wrong = wrong || err != nil
		return at.AddDate(0, 0, plus)
	}
	if q.Since, q.Until = day(d.From, 0), day(d.To, 1); wrong { // the last day belongs to it
		d.Wrong = v.text.Say("admin_audit.no_day")
		return q, d, false, nil
	}
	if before, err := strconv.ParseInt(asked.Get("before"), 10, 64); err == nil && before > 0 {
		q.Before = before
	}
	return q, d, true, nil
}

func (s *Server) audit(v *visit) error {
	q, d, ok, err := v.auditQuery()
	if err != nil {
		return err
	}
	if !ok {
		return v.show(http.StatusUnprocessableEntity, "admin_audit.html", d, nil)
	}
	q.Limit = historyPage + 1
	events, err := s.o.Accounts.Events(v.r.Context(), q)
	if err != nil {
		return err
	}
	d.CSV = d.address("/admin/audit.csv", 0)
	if q.Before > 0 {
		d.Newest = d.address("/admin/audit", 0)
	}
	if len(events) > historyPage {
		events = events[:historyPage]
		d.Next = d.address("/admin/audit", events[historyPage-1].ID)
	}
	if d.Lines, err = v.newRegister().lines(events); err != nil {
		return err
	}
	return v.show(http.StatusOK, "admin_audit.html", d, nil)
}

// register looks up what events are about, each once.
type register struct {
	v         *visit
	addresses map[authstore.AccountID]string
	passwords map[authstore.PasswordID]authstore.AppPassword
}

func (v *visit) newRegister() *register {
	return &register{v, make(map[authstore.AccountID]string), make(map[authstore.PasswordID]authstore.AppPassword)}
}

func (r *register) lines(events []authstore.Event) ([]auditLine, error) {
	ctx, accounts := r.v.r.Context(), r.v.s.o.Accounts
	for _, e := range events {
		if _, known := r.addresses[e.Account]; !known {
			a, err := accounts.Numbered(ctx, e.Account)
			if err != nil && !errors.Is(err, authstore.ErrNotFound) {
				return nil, err
			}
			if r.addresses[e.Account] = ""; err == nil {
				r.addresses[e.Account] = a.Names[0]
			}
		}
		if _, known := r.passwords[e.Password]; !known && e.Password != 0 {
			p, err := accounts.Password(ctx, e.Password)
			if err != nil && !errors.Is(err, authstore.ErrNotFound) {
				return nil, err
			}
			if err != nil { // it went with its account; the event of its making has its label
				p = authstore.AppPassword{Label: r.v.text.Say("admin_audit.number", int64(e.Password))}
			}
			r.passwords[e.Password] = p
		}
	}
	var list []auditLine
	for i, l := range r.v.lines(events, r.passwords) {
		one := auditLine{line: l, Address: r.addresses[events[i].Account]}
		if one.Address != "" {
			one.Path = accountPath(events[i].Account)
		}
		list = append(list, one)
	}
	return list, nil
}

func (s *Server) auditCSV(v *visit) error {
	q, _, ok, err := v.auditQuery()
	if err != nil {
		return err
	}
	if !ok {
		return authstore.ErrNotFound
	}
	r := v.newRegister()
	q.Before = 0
	return v.sendCSV(v.text.Say("admin_audit.file"), append([]string{v.text.Say("admin_audit.account")}, v.csvHeader()...), q, func(events []authstore.Event) ([][]string, error) {
		lines, err := r.lines(events)
		var rows [][]string
		for _, l := range lines {
			rows = append(rows, append([]string{inert(l.Address)}, v.csvRow(l.line)...))
		}
		return rows, err
	})
}

// ShownAudit makes lines ready for the template "events".
func (p view) ShownAudit(lines []auditLine) []shownLine {
	var list []shownLine
	for _, l := range lines {
		one := p.Shown([]line{l.line})[0]
		if one.Address, one.Path = l.Address, l.Path; one.Address == "" {
			one.Address = p.T("admin_audit.gone")
		}
		list = append(list, one)
	}
	return list
}
