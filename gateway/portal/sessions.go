package portal

import (
	"strconv"

	"postern/authstore"
	"postern/authstore/identity"
)

// endSession ends another session of the account. The button stands in the list; the question comes only where a fresh second factor is needed.
func (s *Server) endSession(v *visit) error {
	id, err := strconv.ParseInt(v.r.PathValue("id"), 10, 64)
	if err != nil {
		return authstore.ErrNotFound
	}
	if err = v.confirm(); err == nil {
		err = s.o.People.EndSession(v.r.Context(), v.visitor(), v.session, identity.SessionID(id))
	}
	if err != nil {
		return v.form("ask.html", askData{Title: v.text.Say("sessions.end_title"), Text: v.text.Say("sessions.end_text"), Button: v.text.Say("sessions.end"),
			Action: "/security/sessions/" + strconv.FormatInt(id, 10) + "/end", Back: "/security"}, err)
	}
	return seeOther("/security?done=session")
}

func (s *Server) endOthers(v *visit) error {
	err := v.confirm()
	if err == nil {
		err = s.o.People.EndOthers(v.r.Context(), v.visitor(), v.session)
	}
	if err != nil {
		return v.form("ask.html", askData{Title: v.text.Say("sessions.end_others"), Text: v.text.Say("sessions.end_others_text"), Button: v.text.Say("sessions.end_others"),
			Action: "/security/sessions/end", Back: "/security"}, err)
	}
	return seeOther("/security?done=sessions")
}

// toSecurity is for who types the address of what only a form can do.
func (s *Server) toSecurity(*visit) error { return seeOther("/security") }
