package ops

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"postern/authstore"
	"postern/authstore/secret"
	"postern/gateway/live"
)

// Everybody on the machine reaches a loopback listener, so who asks about sessions shows that he holds the root keys: with a
// pass that is sealed by one of them for this request, good for a moment.
const passHeader = "Postern-Pass"

// passTime is how long a pass is good, and how far two clocks may be apart.
const passTime = 30 * time.Second

func newPass(keys *secret.Keyring, method, uri string) (string, error) {
	now, err := time.Now().MarshalBinary()
	if err != nil {
		return "", err
	}
	sealed, err := keys.SealRow(keys.Newest(), now, passPlace(method, uri))
	return base64.StdEncoding.EncodeToString(sealed), err
}

// passPlace binds a pass to its request; nothing in the database has a place like it.
func passPlace(method, uri string) string { return "operations " + method + " " + uri }

// mayPass reports whether a request has a good pass.
func mayPass(keys *secret.Keyring, r *http.Request) bool {
	sealed, err := base64.StdEncoding.DecodeString(r.Header.Get(passHeader))
	if err != nil {
		return false
	}
	text, err := keys.OpenRow(sealed, passPlace(r.Method, r.URL.RequestURI()))
	if err != nil {
		return false
	}
	var made time.Time
	return made.UnmarshalBinary(text) == nil && time.Since(made).Abs() < passTime
}

// withPass lets a request through to h.
func (s *Server) withPass(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !mayPass(s.Keys(), r) {
			http.Error(w, "no pass of this gateway's key file", http.StatusForbidden)
			return
		}
		h(w, r)
	}
}

// Ended is the answer to a request to end sessions.
type Ended struct {
	Count int  `json:"ended"`
	Gone  bool `json:"gone"` // their connections are closed
}

// endTime is how long the answer waits for connections to close.
const endTime = 2 * time.Second

func (s *Server) listSessions(w http.ResponseWriter, r *http.Request) {
	sel, err := selection(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	writeJSON(w, s.Sessions.List(sel))
}

func (s *Server) endSessions(w http.ResponseWriter, r *http.Request) {
	sel, err := selection(r.URL.Query())
	if err == nil && sel == (live.Selection{}) {
		err = errors.New("which sessions?")
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	n, left := s.Sessions.End(sel)
	s.Log.Info("sessions ended by an administrator", "count", n)
	e := Ended{Count: n}
	select {
	case <-left:
		e.Gone = true
	case <-time.After(endTime):
	case <-r.Context().Done():
	}
	writeJSON(w, e)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

// query is a selection as it stands in a URL.
func query(sel live.Selection) url.Values {
	q := make(url.Values)
	if sel.ID != "" {
		q.Set("id", sel.ID)
	}
	if sel.Account != 0 {
		q.Set("account", strconv.FormatInt(int64(sel.Account), 10))
	}
	if sel.Password != 0 {
		q.Set("app_password", strconv.FormatInt(int64(sel.Password), 10))
	}
	return q
}

// selection reads what query wrote.
func selection(q url.Values) (live.Selection, error) {
	sel := live.Selection{ID: q.Get("id")}
	for name, set := range map[string]func(int64){
		"account":      func(n int64) { sel.Account = authstore.AccountID(n) },
		"app_password": func(n int64) { sel.Password = authstore.PasswordID(n) },
	} {
		if !q.Has(name) {
			continue
		}
		n, err := strconv.ParseInt(q.Get(name), 10, 64)
		if err != nil || n < 1 {
			return sel, fmt.Errorf("%s is not a number above 0", name)
		}
		set(n)
	}
	return sel, nil
}
