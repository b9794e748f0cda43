package portal

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"postern/authstore/identity"
	"postern/gateway/oidcsignin"
)

// What is registered at the provider, behind the site: where it sends browsers back to, and where it says that a session has ended.
const (
	ProviderCallback = providerPath + "/callback"
	ProviderLogout   = providerPath + "/logout"
)

const (
	providerPath = "/sign-in/oidc"
	// dialogueCookie holds the sealed state of the browser's dialogue with the provider, for as long as it may take.
	dialogueCookie = "__Host-postern-provider"
	dialogueTime   = 10 * time.Minute
	// signOutTime is how long a page that somebody signed out with waits for the provider's address.
	signOutTime = 2 * time.Second
)

// providerRoutes are the pages of signing in at the provider.
func (s *Server) providerRoutes(mux *http.ServeMux) {
	mux.Handle("GET "+providerPath, s.page(s.toProvider, 0))
	mux.Handle("GET "+ProviderCallback, s.page(s.fromProvider, 0))
	mux.Handle("GET "+providerPath+"/again", s.page(s.again, identity.SignedIn))
	mux.HandleFunc("POST "+ProviderLogout, s.endedThere)
}

// dialogue is what the browser's cookie holds while it is at the provider.
type dialogue struct {
	oidcsignin.Dialogue
	To   string // the page that was wanted
	Zone string // as the browser says
}

// toProvider leads to the provider. It is a link and no form, for browsers hold what a form leads to against form-action.
func (s *Server) toProvider(v *visit) error {
	if v.session.Stage == identity.SignedIn {
		return s.home(v)
	}
	zone := v.r.URL.Query().Get("zone")
	return v.lead(nil, dialogue{To: v.wanted(), Zone: zone[:min(len(zone), 64)]})
}

// again leads to the provider for a fresh second factor, and from there back.
func (s *Server) again(v *visit) error {
	to := v.r.URL.Query().Get("to")
	if !local.MatchString(to) || strings.HasPrefix(to, "/sign-") {
		to = "/passwords"
	}
	if !v.there() || s.o.People.Fresh(v.session) {
		return seeOther(to)
	}
	return v.lead(&v.session, dialogue{To: to})
}

// lead begins a dialogue with the provider. of is whose second factor is asked for; nil: somebody signs in.
func (v *visit) lead(of *identity.Session, d dialogue) error {
	to, begun, err := v.s.o.Provider.Begin(v.r.Context(), of != nil)
	if err != nil {
		return v.providerFailed(of, d, err)
	}
	d.Dialogue = begun
	sealed, err := v.s.o.People.SealDialogue(v.r.Context(), of, d)
	if err != nil {
		return err
	}
	v.setCookie(dialogueCookie, sealed, int(dialogueTime.Seconds()))
	http.Redirect(v.w, v.r, to, http.StatusSeeOther) // as the provider's own discovery document has it
	return nil
}

// fromProvider is where the provider sends the browser back to.
func (s *Server) fromProvider(v *visit) error {
	answer := v.r.URL.Query()
	if len(answer) == 0 { // typed, or come back to
		return s.home(v)
	}
	of, d, err := v.openDialogue()
	if err != nil {
		return v.providerFailed(of, d, err)
	}
	visitor := v.visitor()
	proof, err := s.o.Provider.Finish(v.r.Context(), d.Dialogue, answer)
	if err != nil {
		if errors.Is(err, identity.ErrUnavailable) {
			s.excuse(v, visitor)
		}
		return v.providerFailed(of, d, err)
	}
	var token identity.Token
	var session identity.Session
	if of != nil {
		token, session, err = s.o.People.GiveClaims(v.r.Context(), visitor, *of, proof.Claims, d.Began)
	} else {
		visitor.Zone = d.Zone
		token, session, err = s.o.People.SignInFrom(v.r.Context(), visitor, proof.Claims)
	}
	if errors.Is(err, identity.ErrNobody) && proof.Unverified {
		err = errUnverified
	}
	if err != nil {
		return v.providerFailed(of, d, err)
	}
	v.enter(token, session)
	if of != nil {
		return seeOther(d.To)
	}
	return s.afterSignIn(v, d.To)
}

// openDialogue opens the browser's dialogue, once.
func (v *visit) openDialogue() (of *identity.Session, d dialogue, err error) {
	sealed := v.cookie(dialogueCookie)
	v.setCookie(dialogueCookie, "", -1)
	if v.session.Stage == identity.SignedIn {
		err := v.s.o.People.OpenDialogue(v.r.Context(), v.visitor(), &v.session, sealed, &d)
		if !errors.Is(err, identity.ErrWrongCode) {
			return &v.session, d, err
		}
	}
	return nil, d, v.s.o.People.OpenDialogue(v.r.Context(), v.visitor(), nil, sealed, &d)
}

// excuse takes back what a dialogue cost that led to nothing because of the provider.
func (s *Server) excuse(v *visit, who identity.Visitor) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(v.r.Context()), time.Second)
	defer cancel()
	if err := s.o.People.ExcuseDialogue(ctx, who); err != nil {
		s.o.Log.Warn("a sign-in that failed is counted", "proto", Protocol, "err", err)
	}
}

// errUnverified: the provider names an address that is nobody's for sure.
var errUnverified = errors.New("the address was not verified")

// providerProblems are the texts of what goes wrong with the provider, and what the log calls it.
var providerProblems = []struct {
	err       error
	key, code string
}{
	{identity.ErrUnavailable, "provider.unavailable", "unavailable"},
	{oidcsignin.ErrStale, "provider.stale", "stale"},
	{identity.ErrWrongCode, "provider.stale", "stale"},
	{oidcsignin.ErrUntrusted, "provider.untrusted", "untrusted"},
	{errUnverified, "provider.unverified", "unverified"},
	{identity.ErrNobody, "provider.nobody", "nobody"},
	{identity.ErrTied, "provider.tied", "tied"},
	{identity.ErrSuspended, "provider.suspended", "suspended"},
	{identity.ErrFactorThere, "provider.no_factor", "no_factor"},
	{identity.ErrNotAgain, "provider.not_again", "not_again"},
}

// providerFailed shows why a dialogue with the provider led to nothing, with the way to try again. Nothing that came with the request stands
// on the page.
func (v *visit) providerFailed(of *identity.Session, d dialogue, err error) error {
	name := v.s.o.ProviderName
	key, code := "", ""
	for _, p := range providerProblems {
		if errors.Is(err, p.err) {
			key, code = p.key, p.code
			break
		}
	}
	if r, ok := errors.AsType[*oidcsignin.Refused](err); ok {
		key, code = "provider.refused", r.Code
		switch r.Code {
		case "access_denied":
			key = "provider.denied"
		case "server_error", "temporarily_unavailable":
			key = "provider.unavailable"
		}
	}
	var many *identity.TooMany
	if errors.As(err, &many) {
		code = "throttled"
	}
	if code == "" {
		return err
	}
	v.s.o.Log.Info("sign-in refused", "proto", Protocol, "client", v.s.o.Client(v.r), "account", int64(v.session.Account), "method", "provider", "code", code, "err", err)
	if key != "" {
		err = said{key, []any{name}}
	}
	status := http.StatusUnprocessableEntity
	if key == "provider.unavailable" {
		status = http.StatusServiceUnavailable
	}
	if of != nil {
		return v.show(status, "ask.html", askData{Title: v.text.Say("confirm.title"), Back: "/passwords", To: d.To}, err)
	}
	return v.show(status, "sign_in.html", signInData{To: d.To}, err)
}

// there reports whether the person's second factor is the one at the provider: he signed in there and has none here.
func (v *visit) there() bool {
	p := v.s.o.Provider
	if p == nil || v.session.Issuer == "" || v.session.Issuer != p.Issuer() {
		return false
	}
	kinds, err := v.factorKinds()
	return err == nil && len(kinds) == 0
}

// gated puts the way to the provider before a page whose form needs a fresh second factor, for those whose factor is there: what they
// would have filled in by then could not come with them.
func (s *Server) gated(title string, h handler) handler {
	return func(v *visit) error {
		if s.o.People.Fresh(v.session) || !v.there() {
			return h(v)
		}
		return v.form("ask.html", askData{Title: v.text.Say(title), Back: v.back()}, nil)
	}
}

// signOutThere is where somebody who has just signed out may sign out at the provider too; empty: nowhere.
func (v *visit) signOutThere() string {
	if v.s.o.Provider == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(v.r.Context(), signOutTime)
	defer cancel()
	return v.s.o.Provider.SignOutURL(ctx)
}

// endedThere takes the provider's word that a session there has ended (OpenID Connect Back-Channel Logout 1.0 section 2.5). No browser comes here: there is no cookie
// and no page.
func (s *Server) endedThere(w http.ResponseWriter, r *http.Request) {
	who := identity.Visitor{Client: s.o.Client(r), Agent: r.UserAgent()}
	err := s.o.People.MayEnd(r.Context(), who)
	n := 0
	if err == nil {
		n, err = s.end(r, who)
	}
	var many *identity.TooMany
	status := http.StatusOK
	switch {
	case err == nil:
		s.o.Log.Info("sessions ended at the provider", "proto", Protocol, "client", who.Client, "sessions", n)
	case errors.As(err, &many):
		status = http.StatusTooManyRequests
		w.Header().Set("Retry-After", strconv.Itoa(int(many.Wait/time.Second)))
	case errors.Is(err, oidcsignin.ErrUntrusted), errors.Is(err, identity.ErrWrongCode), errors.Is(err, errForm):
		status = http.StatusBadRequest
		s.o.Log.Info("logout token refused", "proto", Protocol, "client", who.Client, "err", err)
	default:
		status = http.StatusServiceUnavailable
		s.o.Log.Error("a session that ended at the provider may go on here", "proto", Protocol, "err", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if status == http.StatusBadRequest {
		w.Write([]byte(`{"error":"invalid_request"}`))
	}
}

// end ends what a logout token tells of, and counts it.
func (s *Server) end(r *http.Request, who identity.Visitor) (int, error) {
	if err := r.ParseForm(); err != nil || len(r.PostForm["logout_token"]) != 1 {
		return 0, errForm
	}
	ending, err := s.o.Provider.Ended(r.Context(), r.PostForm.Get("logout_token"))
	if err != nil {
		return 0, err
	}
	return s.o.People.End(r.Context(), who, ending)
}

// The methods below are for templates.

// Provider is what the provider is called that people sign in at; empty: they sign in here.
func (p view) Provider() string {
	if p.v.s.o.Provider == nil {
		return ""
	}
	return p.v.s.o.ProviderName
}

// There reports whether the person's second factor is the one at the provider.
func (p view) There() bool { return p.v.there() }

// Again is the way to a fresh second factor at the provider and back to a page; empty: to this one.
func (p view) Again(to string) string {
	if to == "" {
		to = p.Here()
	}
	return providerPath + "/again?to=" + url.QueryEscape(to)
}
