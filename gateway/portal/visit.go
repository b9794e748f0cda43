package portal

import (
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"postern/authstore"
	"postern/authstore/identity"
	"postern/gateway/texts"
)

// The cookies. __Host- binds them to this host, https and no domain (RFC 6265bis section 4.1.3.2).
const (
	sessionCookie  = "__Host-postern"
	deviceCookie   = "__Host-postern-device"   // this browser has signed in before
	languageCookie = "__Host-postern-language" // chosen at the foot of a page

	yearLong = 365 * 24 * time.Hour // how long the last two stay
)

// visit is one request of a person's browser, and the answer that is being made.
type visit struct {
	s       *Server
	w       http.ResponseWriter
	r       *http.Request
	text    *texts.Printer
	zone    *time.Location
	session identity.Session       // zero where nobody is signed in
	policy  *authstore.Policy      // of the account; nil: not read yet
	kinds   map[identity.Kind]bool // of the second factors there are; nil: not read yet

	administers bool               // the page is one of those for administrators, and the visitor is one
	of          *authstore.Account // whom such a page is about; nil: nobody alone
}

// handler answers a visit. An error becomes a page: see (*visit).fail.
type handler func(*visit) error

// page makes a handler of the standard library's. atLeast is the stage that a session must have reached; zero: there need be none.
func (s *Server) page(h handler, atLeast identity.Stage) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := s.newVisit(w, r)
		var err error
		if r.Method == http.MethodPost {
			err = v.readForm()
		}
		if err == nil { // after the form, which may take its time: who is signed in may not be when it has come
			err = v.identify(atLeast)
		}
		if err == nil && r.Method == http.MethodPost && atLeast == identity.SignedIn {
			err = s.o.People.MayChange(r.Context(), v.session)
		}
		if err == nil {
			err = h(v)
		}
		if err != nil {
			v.fail(err)
		}
	})
}

// errForm is of a form that no browser sends. What was wrong with it is nobody's concern, and may be part of a password.
var errForm = errors.New("the form can't be read")

// readForm reads the form; errForm, *http.MaxBytesError.
func (v *visit) readForm() error {
	err := v.r.ParseForm()
	if _, large := errors.AsType[*http.MaxBytesError](err); err != nil && !large {
		return errForm
	}
	return err
}

func (s *Server) newVisit(w http.ResponseWriter, r *http.Request) *visit {
	v := &visit{s: s, w: w, r: r, zone: time.UTC}
	v.setReader()
	return v
}

// setReader chooses language and zone: what was picked at the foot of the page, the account's, the browser's.
func (v *visit) setReader() {
	v.text = texts.In(v.cookie(languageCookie), v.session.Language, v.r.Header.Get("Accept-Language"))
	if zone, err := time.LoadLocation(v.session.Zone); err == nil {
		v.zone = zone
	}
}

// identify finds out who is signed in, and leads those who have not got far enough to where they get on.
func (v *visit) identify(atLeast identity.Stage) error {
	if token := v.cookie(sessionCookie); token != "" {
		session, err := v.s.o.People.Session(v.r.Context(), v.visitor(), identity.Token(token))
		switch {
		case err == nil:
			v.session = session
			v.setReader()
		case !errors.Is(err, identity.ErrNoSession):
			return err
		case atLeast > 0: // the cookie stays where it is: of a form that was sent twice, the second may have brought the old one
			return v.endedAt()
		}
	}
	switch {
	case v.session.Stage >= atLeast:
		return nil
	case v.session.Stage == identity.AwaitsFactor:
		return carrying("/sign-in/factor", v.here())
	case v.session.Stage == identity.AwaitsSetUp:
		return seeOther("/set-up")
	}
	return carrying("/sign-in", v.here())
}

// here is the page that the sign-in is to lead back to; empty where a form is sent, which can't be gone to.
func (v *visit) here() string {
	if v.r.Method == http.MethodGet && deep.MatchString(v.r.URL.Path) {
		return v.r.URL.Path
	}
	return v.wanted()
}

// endedAt leads to the sign-in, and from there back.
func (v *visit) endedAt() seeOther {
	if to := carrying("/sign-in", v.here()); to != "/sign-in" {
		return to + "&ended"
	}
	return "/sign-in?ended"
}

// seeOther is the error of a handler that sends the browser to another page of ours.
type seeOther string

func (s seeOther) Error() string { return "see " + string(s) }

// refused is the error of a form that the portal itself does not take: the key of the text that says why.
type refused string

func (r refused) Error() string { return string(r) }

// said is refused with a text that holds more.
type said struct {
	key  string
	args []any
}

func (s said) Error() string { return s.key }

func (v *visit) redirect(path string) {
	// A path of ours, never one that came with the request: there is no open redirect.
	http.Redirect(v.w, v.r, path, http.StatusSeeOther)
}

// visitor is what the rules want to know of the browser.
func (v *visit) visitor() identity.Visitor {
	return identity.Visitor{Client: v.s.o.Client(v.r), Agent: v.r.UserAgent(), Device: v.cookie(deviceCookie), Language: v.text.Tag.String(), Zone: v.field("zone")}
}

// accounts changes things in the name of the visitor, as long as his session goes on.
func (v *visit) accounts() *authstore.Accounts { return v.s.o.Accounts.As(v.actor()) }

// actor is the visitor in the history, as long as his session goes on.
func (v *visit) actor() authstore.Actor {
	if v.administers {
		return v.s.o.People.Administrator(v.visitor(), v.session)
	}
	who := v.visitor().Actor()
	who.Session = int64(v.session.ID)
	return who
}

// bounds is the policy of the account.
func (v *visit) bounds() (authstore.Policy, error) {
	if v.policy == nil {
		p, err := v.s.o.Accounts.Policy(v.r.Context(), v.about().Account)
		if err != nil {
			return p, err
		}
		if longest := v.s.o.Longest; longest > 0 && (p.Longest == 0 || p.Longest > longest) {
			p.Longest = longest
		}
		v.policy = &p
	}
	return *v.policy, nil
}

// field is a form's field without the blanks around it.
func (v *visit) field(name string) string { return strings.TrimSpace(v.r.PostForm.Get(name)) }

func (v *visit) cookie(name string) string {
	c, err := v.r.Cookie(name)
	if err != nil {
		return ""
	}
	return c.Value
}

func (v *visit) setCookie(name, value string, maxAge int) {
	http.SetCookie(v.w, &http.Cookie{Name: name, Value: value, Path: "/", MaxAge: maxAge, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
}

// enter takes the session that signing in, or a further factor, has led to. The cookie holds nothing that was known before. Somebody
// else's session that was here until now ends.
func (v *visit) enter(t identity.Token, s identity.Session) {
	if v.session.Stage > 0 && v.session.ID != s.ID {
		if err := v.s.o.People.SignOut(v.r.Context(), v.visitor(), v.session); err != nil && !errors.Is(err, identity.ErrNoSession) {
			v.s.o.Log.Warn("a session that another took the place of goes on", "proto", Protocol, "account", int64(v.session.Account), "err", err)
		}
	}
	v.session, v.kinds = s, nil
	v.setCookie(sessionCookie, string(t), 0)
	if s.Stage == identity.SignedIn {
		v.setCookie(deviceCookie, v.s.o.People.Device(s), int(yearLong.Seconds()))
	}
	v.setReader()
}

// confirm makes sure that a second factor was given a moment ago, with this form if need be: every form that needs it has the fields of the
// template "confirm" while the session is not fresh. identity.ErrStepUp: they were not filled in yet; show the form again.
func (v *visit) confirm() error {
	if v.s.o.People.Fresh(v.session) {
		return nil
	}
	return v.giveFactor()
}

// giveFactor takes the fields of the template "factor"; identity.ErrStepUp: they were empty.
func (v *visit) giveFactor() error {
	var token identity.Token
	var session identity.Session
	var err error
	switch code, answer := v.field("code"), v.r.PostForm.Get("answer"); {
	case answer != "":
		token, session, err = v.s.o.People.GivePasskey(v.r.Context(), v.visitor(), &v.session, v.r.PostForm.Get("state"), []byte(answer))
	case code != "":
		token, session, err = v.s.o.People.GiveCode(v.r.Context(), v.visitor(), v.session, code)
	default:
		return identity.ErrStepUp
	}
	if err == nil {
		v.enter(token, session)
	}
	return err
}

// fail answers an error that no form shows.
func (v *visit) fail(err error) {
	var other seeOther
	var large *http.MaxBytesError
	var many *identity.TooMany
	switch {
	case errors.Is(err, http.ErrAbortHandler): // half an answer has gone out; (*Server).guarded knows this panic
		panic(http.ErrAbortHandler)
	case errors.As(err, &other):
		v.redirect(string(other))
	case errors.Is(err, identity.ErrNoSession), errors.Is(err, authstore.ErrSignedOut):
		v.redirect(string(v.endedAt()))
	case errors.Is(err, authstore.ErrNotFound), errors.Is(err, authstore.ErrNotAdministrator):
		v.trouble(http.StatusNotFound, "error.not_found_title", "error.not_found")
	case errors.Is(err, identity.ErrAdministrators):
		v.trouble(http.StatusForbidden, "error.cross_origin_title", "admin.no_renewal")
	case errors.Is(err, authstore.ErrUncertain):
		v.s.o.Log.Error("page", "proto", Protocol, "path", route(v.r), "account", int64(v.session.Account), "err", err)
		v.trouble(http.StatusServiceUnavailable, "error.uncertain_title", "error.uncertain")
	case errors.Is(err, errForm):
		v.trouble(http.StatusBadRequest, "error.cross_origin_title", "error.form")
	case errors.As(err, &many):
		v.w.Header().Set("Retry-After", strconv.Itoa(int(many.Wait/time.Second)))
		v.trouble(http.StatusTooManyRequests, "error.cross_origin_title", "sign_in.too_many", v.wait(many.Wait))
	case errors.As(err, &large):
		v.trouble(http.StatusRequestEntityTooLarge, "error.cross_origin_title", "error.too_large")
	case v.r.Context().Err() != nil: // the browser has gone
	default:
		v.trouble(http.StatusServiceUnavailable, "error.unavailable_title", "error.broken", v.broken(err))
	}
}

// broken logs what no form is to blame for, under a number by which people can tell of it.
func (v *visit) broken(err error) (number string) {
	number = rand.Text()[:8]
	v.s.o.Log.LogAttrs(v.r.Context(), slog.LevelError, "page", slog.String("proto", Protocol), slog.String("number", number),
		slog.String("path", route(v.r)), slog.Int64("account", int64(v.session.Account)), slog.Any("err", err))
	return number
}

// problems are the texts of what a form is refused for by the rules.
var problems = []struct {
	err error
	key string
}{
	{identity.ErrWrong, "sign_in.wrong"},
	{identity.ErrUnavailable, "sign_in.unavailable"},
	{identity.ErrNeedsInvitation, "sign_in.needs_invitation"},
	{identity.ErrTied, "sign_in.tied"},
	{identity.ErrNobody, "sign_in.nobody"},
	{identity.ErrWrongCode, "confirm.wrong"},
	{identity.ErrLastFactor, "factors.last"},
	{identity.ErrManyFactors, "factors.many"},
	{identity.ErrKnownFactor, "factors.known"},
	{identity.ErrNoPasskeys, "passkey.impossible"},
}

// problem says in the reader's words what a form was refused for; empty where it is not the form's fault and belongs to fail.
func (v *visit) problem(err error) string {
	var many *identity.TooMany
	var weak *identity.Weak
	var key refused
	var full said
	switch {
	case errors.As(err, &full):
		return v.text.Say(full.key, full.args...)
	case errors.As(err, &key):
		return v.text.Say(string(key))
	case errors.Is(err, identity.ErrVouched):
		return v.text.Say("provider.only", v.s.o.ProviderName)
	case errors.As(err, &many):
		return v.text.Say("sign_in.too_many", v.wait(many.Wait))
	case errors.As(err, &weak):
		return v.text.Say("weak." + string(weak.Reason))
	case errors.Is(err, authstore.ErrLabel):
		return v.text.Say("factors.label_wrong", authstore.MaxLabel)
	case errors.Is(err, identity.ErrWrongCode) && v.r.PostForm.Get("new_answer") != "":
		return v.text.Say("passkey.failed")
	case errors.Is(err, identity.ErrWrongCode) && v.r.PostForm.Get("answer") != "":
		return v.text.Say("confirm.passkey_failed")
	}
	for _, p := range problems {
		if errors.Is(err, p.err) {
			return v.text.Say(p.key)
		}
	}
	return ""
}

// wait says how long in whole minutes or hours, rounded up.
func (v *visit) wait(d time.Duration) string {
	if hours := int((d + time.Hour - 1) / time.Hour); hours > 1 {
		return v.text.Say("wait.hours", hours)
	}
	return v.text.Say("wait.minutes", max(1, int((d+time.Minute-1)/time.Minute)))
}
