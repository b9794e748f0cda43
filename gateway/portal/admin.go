package portal

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"postern/authstore"
	"postern/authstore/identity"
)

// administrate adds the pages for administrators. For everybody else none of them is there.
func (s *Server) administrate(mux *http.ServeMux) {
	on := func(pattern string, h handler) {
		s.administration = append(s.administration, pattern)
		mux.Handle(pattern, s.administrators(h))
	}
	about := func(pattern string, h handler) { on(pattern, s.someone(h)) }
	act := func(path string, show, do handler) {
		about("GET /admin/accounts/{account}"+path, s.another(s.gated("confirm.title", show)))
		about("POST /admin/accounts/{account}"+path, s.another(do))
	}
	on("GET /admin", s.findAccounts)
	about("GET /admin/accounts/{account}", s.account)
	about("GET /admin/accounts/{account}/passwords/{id}", s.detail)
	act("/passwords/new", s.createPage, s.create)
	act("/passwords/revoke-all", s.adminRevokeAllPage, s.adminRevokeAll)
	act("/passwords/{id}/revoke", s.revokePage, s.adminRevoke)
	for _, a := range acts {
		act("/"+a.name, s.actPage(a), s.act(a))
	}
	act("/invite", s.invitePage, s.invite)
	on("GET /admin/domain", s.gated("confirm.title", s.domainPage))
	on("POST /admin/domain", s.endDomain)
	on("GET /admin/audit", s.audit)
	on("GET /admin/audit.csv", s.auditCSV)
}

// administrators lets administrators in who are signed in, second factor and all. Others learn no more than that there is no such page; only
// somebody whose session has just ended is led to the sign-in.
func (s *Server) administrators(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := s.newVisit(w, r)
		err := v.administer()
		if err == nil {
			err = h(v)
		}
		if err != nil {
			v.fail(err)
		}
	})
}

func (v *visit) administer() error {
	if v.r.Method == http.MethodPost {
		if err := v.readForm(); err != nil {
			return err
		}
	}
	if err := v.identify(0); err != nil {
		return err
	}
	switch {
	case v.session.Stage == 0 && v.cookie(sessionCookie) != "":
		return v.endedAt()
	case v.session.Stage != identity.SignedIn || !v.session.Admin:
		return authstore.ErrNotFound
	}
	v.administers = true
	if v.r.Method == http.MethodPost {
		return v.s.o.People.MayAdminister(v.r.Context(), v.session)
	}
	return nil
}

// someone finds the account that the path names.
func (s *Server) someone(h handler) handler {
	return func(v *visit) error {
		id, err := strconv.ParseInt(v.r.PathValue("account"), 10, 64)
		if err != nil {
			return authstore.ErrNotFound
		}
		a, err := s.o.Accounts.Numbered(v.r.Context(), authstore.AccountID(id))
		if err != nil {
			return err
		}
		v.of = &a
		return h(v)
	}
}

// another refuses administrators' own accounts: what is theirs they change where everybody does, under the rules that hold there.
func (s *Server) another(h handler) handler {
	return func(v *visit) error {
		if v.isOwn() {
			v.trouble(http.StatusForbidden, "admin.own_title", "admin.own")
			return nil
		}
		return h(v)
	}
}

func (v *visit) isOwn() bool { return v.of != nil && v.of.ID == v.session.Account }

// whose is the account that a page is about.
type whose struct {
	Account authstore.AccountID
	Address string // its first
}

// about is the visitor's own account, but on a page for administrators that names another.
func (v *visit) about() whose {
	if v.administers && v.of != nil {
		return whose{v.of.ID, v.of.Names[0]}
	}
	return whose{v.session.Account, v.session.Address}
}

// under is where the pages lie of the account that this one is about; empty: they are the person's own.
func (v *visit) under() string {
	if v.administers && v.of != nil {
		return accountPath(v.of.ID)
	}
	return ""
}

func accountPath(id authstore.AccountID) string {
	return "/admin/accounts/" + strconv.FormatInt(int64(id), 10)
}

// back is the page that a question leads back to.
func (v *visit) back() string {
	switch {
	case v.under() != "":
		return v.under()
	case v.administers:
		return "/admin"
	}
	return "/passwords"
}

// madeBy is the administrator who makes an app password for somebody else; empty: its owner does.
func (v *visit) madeBy() string {
	if v.administers {
		return v.session.Address
	}
	return ""
}

// note logs what was done to an account, and which administrator did it.
func (v *visit) note(what string, id authstore.AccountID, more ...any) {
	facts := append([]any{"proto", Protocol, "client", v.s.o.Client(v.r), "account", int64(id)}, more...)
	if v.administers {
		facts = append(facts, "administrator", int64(v.session.Account))
	}
	v.s.o.Log.Info(what, facts...)
}

const accountsPage = 50

// statuses are those of accounts, by their names in a form.
var statuses = []struct {
	Name   string
	Status authstore.Status
}{{"any", 0}, {"active", authstore.Active}, {"suspended", authstore.AccountPaused}, {"gone", authstore.AccountGone}}

// findData is what the template admin.html shows.
type findData struct {
	Text, Domain, Status string
	Statuses             []string
	Accounts             []authstore.Account
	Next                 string // the accounts behind these; empty: there are none
	First                string // the way back; empty: these are the first
}

// Asked reports whether the list is chosen from all accounts.
func (d findData) Asked() bool { return d.Text != "" || d.Domain != "" || d.Status != "any" }

func (s *Server) findAccounts(v *visit) error {
	asked := v.r.URL.Query()
	d := findData{Text: strings.TrimSpace(asked.Get("q")), Domain: strings.TrimSpace(asked.Get("domain")), Status: "any"}
	q := authstore.AccountQuery{Text: strings.ToLower(d.Text), After: asked.Get("after"), Limit: accountsPage + 1}
	for _, one := range statuses {
		d.Statuses = append(d.Statuses, one.Name)
		if one.Name == asked.Get("status") {
			d.Status, q.Status = one.Name, one.Status
		}
	}
	if d.Domain != "" {
		q.Domain = canonicalDomain(d.Domain)
	}
	list, err := s.o.Accounts.Find(v.r.Context(), q)
	if err != nil {
		return err
	}
	if len(list) > accountsPage {
		list = list[:accountsPage]
		d.Next = d.address(list[accountsPage-1].Names[0])
	}
	if d.Accounts = list; q.After != "" {
		d.First = d.address("")
	}
	return v.show(http.StatusOK, "admin.html", d, nil)
}

// address is where the list is shown, with what chooses from it.
func (d findData) address(after string) string {
	q := make(url.Values)
	for name, value := range map[string]string{"q": d.Text, "domain": d.Domain, "status": d.Status, "after": after} {
		if value != "" && !(name == "status" && value == "any") {
			q.Set(name, value)
		}
	}
	if len(q) == 0 {
		return "/admin"
	}
	return "/admin?" + q.Encode()
}

// canonicalDomain is a domain as addresses have it. What can be none is looked for as it is, and found nowhere.
func canonicalDomain(typed string) string {
	if d, err := authstore.CanonicalDomain(typed); err == nil {
		return d
	}
	return strings.ToLower(typed)
}

// The methods below are for templates.

// Under is where the pages lie of the account that this one is about; empty: they are the person's own.
func (p view) Under() string { return p.v.under() }

// About is the address of that account.
func (p view) About() string { return p.v.about().Address }

// AccountPath is an account's page for administrators.
func (p view) AccountPath(id authstore.AccountID) string { return accountPath(id) }

// Number64 writes a count as the reader's language does.
func (p view) Number64(n int) string { return p.Number(int64(n)) }

// StatusWord says what a status means.
func (p view) StatusWord(s authstore.Status) string {
	for _, one := range statuses {
		if one.Status == s {
			return p.T("admin.status_" + one.Name)
		}
	}
	return s.String()
}
