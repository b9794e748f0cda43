package portal

import (
	"net/http"

	"postern/authstore/identity"
)

// securityData is what the template security.html shows.
type securityData struct {
	Factors   identity.Factors
	Sessions  []identity.Session
	Primary   bool // it is kept here and can be changed
	Language  string
	Languages []tongue
	Zone      string
	Regions   []region
	Done      string // what has just been done
}

// done are the texts of what has just been done, by the word in the query that tells it.
var done = map[string]string{
	"renamed":        "security.done_renamed",
	"removed":        "security.done_removed",
	"app":            "security.done_app",
	"passkey":        "security.done_passkey",
	"session":        "security.done_session",
	"sessions":       "security.done_sessions",
	"reader":         "security.done_reader",
	"reader_unknown": "security.no_such_zone",
}

// security shows all that keeps the account safe.
func (s *Server) security(v *visit) error {
	factors, err := s.o.People.Factors(v.r.Context(), v.session)
	if err != nil {
		return err
	}
	sessions, err := s.o.People.Sessions(v.r.Context(), v.session)
	if err != nil {
		return err
	}
	d := securityData{Factors: factors, Sessions: sessions, Primary: s.o.People.KeepsPrimary(),
		Language: v.session.Language, Languages: tongues(), Zone: v.zone.String(), Regions: regions(v.zone.String())}
	if key, ok := done[v.r.URL.Query().Get("done")]; ok {
		d.Done = v.text.Say(key)
	}
	return v.show(http.StatusOK, "security.html", d, nil)
}

// askData is a question with a button: what is about to happen, and the second factor where it must be a fresh one.
type askData struct {
	Title, Text string
	Action      string            // a path of ours that the form is sent to
	Fields      map[string]string // what else the form holds
	Button      string
	Danger      bool
	Back        string
	To          string // where a fresh second factor at the provider leads back to; empty: to this page
}

// fresh puts the question for a second factor before a page whose form holds what can't be shown a second time, passwords or a passkey's
// answer, so that it would not survive a wrong code. path is the page's own.
func (s *Server) fresh(path, title string, h handler) handler {
	return func(v *visit) error {
		var err error
		gate := v.r.Method == http.MethodPost && v.field("gate") != ""
		if gate {
			if err = v.confirm(); err == nil {
				return seeOther(path)
			}
		} else if s.o.People.Fresh(v.session) {
			return h(v)
		}
		return v.form("ask.html", askData{Title: v.text.Say(title), Action: path, Fields: map[string]string{"gate": "1"},
			Button: v.text.Say("confirm.go_on"), Back: "/security"}, err)
	}
}
