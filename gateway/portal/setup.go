package portal

import (
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"postern/authstore/identity"
)

// enrolData is what the part "enrol" shows of an authenticator app, or a passkey, that is about to be added.
type enrolData struct {
	QR      template.URL // the picture itself
	Open    template.URL // for an app on the same phone
	Groups  []string     // the key, for typing
	State   string
	Label   string // of the app
	Passkey string // what the passkey is called, until somebody changes it
}

// enrolment makes the data of a page that adds an authenticator app: that of a page which was sent, for the QR code to stay the same after
// a typing error, or a new one.
func (v *visit) enrolment() (enrolData, error) {
	var e identity.Enrolment
	var err error = identity.ErrWrongCode
	if state := v.r.PostForm.Get("enrolment"); state != "" {
		e, err = v.s.o.People.ReopenTOTP(v.r.Context(), v.session, state)
	}
	if err != nil {
		e, err = v.s.o.People.EnrolTOTP(v.r.Context(), v.session)
	}
	if err != nil {
		return enrolData{}, err
	}
	d := enrolData{State: e.State, Open: template.URL(e.URL), Groups: groups(e.Key), Label: v.field("app_label"), Passkey: v.field("passkey_label"),
		QR: template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(e.QR))}
	if d.Label == "" {
		d.Label = v.text.Say("kind.totp")
	}
	if d.Passkey == "" {
		d.Passkey = v.text.Browser(v.r.UserAgent())
	}
	return d, nil
}

// groups cuts a key into fours.
func groups(key string) []string {
	var list []string
	for part := range slices.Chunk([]byte(key), 4) {
		list = append(list, string(part))
	}
	return list
}

// add adds what the form brought: a passkey that the browser made, or an authenticator app with its first code.
func (v *visit) add() error {
	var token identity.Token
	var session identity.Session
	var err error
	ctx, form := v.r.Context(), v.r.PostForm
	if answer := form.Get("new_answer"); answer != "" {
		token, session, err = v.s.o.People.AddPasskey(ctx, v.visitor(), v.session, form.Get("new_state"), []byte(answer), v.field("passkey_label"))
	} else {
		label := v.text.Say("kind.totp") // the set-up does not ask for one
		if form.Has("app_label") {
			label = v.field("app_label")
		}
		token, session, err = v.s.o.People.AddTOTP(ctx, v.visitor(), v.session, form.Get("enrolment"), v.field("app_code"), label)
	}
	if err == nil {
		v.enter(token, session)
	}
	return err
}

// setUp shows the way to the first second factor.
func (s *Server) setUp(v *visit) error {
	if v.session.Stage != identity.AwaitsSetUp {
		return s.home(v)
	}
	d, err := v.enrolment()
	if err != nil {
		return err
	}
	return v.form("set_up.html", d, nil)
}

// setUpFactor adds the first second factor, and shows the recovery codes that belong to it.
func (s *Server) setUpFactor(v *visit) error {
	if v.session.Stage != identity.AwaitsSetUp {
		return s.home(v) // a page that was sent twice
	}
	if err := v.add(); err != nil {
		d, enrolErr := v.enrolment()
		if enrolErr != nil {
			return enrolErr
		}
		return v.form("set_up.html", d, err)
	}
	s.signedIn(v)
	err := s.showCodes(v, "codes.after_set_up")
	if err != nil && !errors.Is(err, http.ErrAbortHandler) { // the factor is there; codes can be made on the page that says that there are none
		v.broken(err)
		return seeOther("/security")
	}
	return err
}

// codesData is what the template codes.html shows.
type codesData struct {
	Codes []string
	Lead  string
}

// showCodes makes recovery codes and shows them, this once.
func (s *Server) showCodes(v *visit, lead string) error {
	codes, err := s.o.People.RenewRecoveryCodes(v.r.Context(), v.visitor(), v.session)
	if err != nil {
		return err
	}
	return v.show(http.StatusOK, "codes.html", codesData{codes, v.text.Say(lead)}, nil)
}

// recoveryCode is all that the file of recovery codes gives back of what was sent to it.
var recoveryCode = regexp.MustCompile(`^[0-9A-Za-z-]{4,40}$`)

// codesFile sends recovery codes back as a file. They come with the form, for nobody can read them again once they were shown.
func (s *Server) codesFile(v *visit) error {
	codes := v.r.PostForm["codes"]
	if len(codes) == 0 || slices.ContainsFunc(codes, func(c string) bool { return !recoveryCode.MatchString(c) }) {
		return seeOther("/security")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\r\n%s\r\n\r\n", v.text.Say("codes.file_title", s.o.Name, v.session.Address), v.text.Say("codes.file_lead", v.text.Time(time.Now().In(v.zone))))
	for _, c := range codes {
		b.WriteString(c + "\r\n")
	}
	h := v.w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Disposition", `attachment; filename="`+v.text.Say("codes.file_name")+`"`)
	_, err := v.w.Write([]byte(b.String()))
	if err != nil {
		return http.ErrAbortHandler
	}
	return nil
}

// kept goes on from the recovery codes.
func (s *Server) kept(*visit) error { return seeOther("/passwords") }
