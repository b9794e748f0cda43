package portal

import (
	"slices"
	"strconv"

	"postern/authstore"
	"postern/authstore/identity"
)

// factorOf finds the second factor that the path names; authstore.ErrNotFound.
func (v *visit) factorOf() (identity.Factor, error) {
	id, err := strconv.ParseInt(v.r.PathValue("id"), 10, 64)
	if err != nil {
		return identity.Factor{}, authstore.ErrNotFound
	}
	all, err := v.s.o.People.Factors(v.r.Context(), v.session)
	if err != nil {
		return identity.Factor{}, err
	}
	i := slices.IndexFunc(all.List, func(f identity.Factor) bool { return f.ID == identity.FactorID(id) })
	if i < 0 {
		return identity.Factor{}, authstore.ErrNotFound
	}
	return all.List[i], nil
}

func (s *Server) newApp(v *visit) error {
	d, err := v.enrolment()
	if err != nil {
		return err
	}
	return v.form("new_app.html", d, nil)
}

func (s *Server) addApp(v *visit) error {
	if err := v.add(); err != nil {
		d, enrolErr := v.enrolment()
		if enrolErr != nil {
			return enrolErr
		}
		return v.form("new_app.html", d, err)
	}
	return seeOther("/security?done=app")
}

func (s *Server) newPasskey(v *visit) error {
	return v.form("new_passkey.html", enrolData{Passkey: v.text.Browser(v.r.UserAgent())}, nil)
}

func (s *Server) addPasskey(v *visit) error {
	if v.r.PostForm.Get("new_answer") == "" {
		return v.form("new_passkey.html", enrolData{Passkey: v.field("passkey_label")}, refused("passkey.no_script"))
	}
	if err := v.add(); err != nil {
		return v.form("new_passkey.html", enrolData{Passkey: v.field("passkey_label")}, err)
	}
	return seeOther("/security?done=passkey")
}

func (s *Server) renamePage(v *visit) error {
	f, err := v.factorOf()
	if err != nil {
		return err
	}
	return v.form("rename.html", f, nil)
}

func (s *Server) rename(v *visit) error {
	f, err := v.factorOf()
	if err != nil {
		return err
	}
	f.Label = v.field("label")
	if err := s.o.People.RenameFactor(v.r.Context(), v.visitor(), v.session, f.ID, f.Label); err != nil {
		return v.form("rename.html", f, err)
	}
	return seeOther("/security?done=renamed")
}

func (s *Server) removePage(v *visit) error {
	f, err := v.factorOf()
	if err != nil {
		return err
	}
	return v.askRemove(f, nil)
}

func (s *Server) removeFactor(v *visit) error {
	f, err := v.factorOf()
	if err != nil {
		return err
	}
	if err = v.confirm(); err == nil {
		err = s.o.People.RemoveFactor(v.r.Context(), v.visitor(), v.session, f.ID)
	}
	if err != nil {
		return v.askRemove(f, err)
	}
	return seeOther("/security?done=removed")
}

func (v *visit) askRemove(f identity.Factor, problem error) error {
	text := "factors.remove_totp"
	if f.Kind == identity.Passkey {
		text = "factors.remove_passkey"
	}
	return v.form("ask.html", askData{Title: v.text.Say("factors.remove_title", f.Label), Text: v.text.Say(text), Button: v.text.Say("factors.remove"),
		Danger: true, Action: "/security/factors/" + strconv.FormatInt(int64(f.ID), 10) + "/remove", Back: "/security"}, problem)
}

func (s *Server) renewPage(v *visit) error { return s.askRenew(v, nil) }

func (s *Server) renew(v *visit) error {
	if err := v.confirm(); err != nil {
		return s.askRenew(v, err)
	}
	return s.showCodes(v, "codes.after_renewal")
}

func (s *Server) askRenew(v *visit, problem error) error {
	all, err := s.o.People.Factors(v.r.Context(), v.session)
	if err != nil {
		return err
	}
	text := v.text.Say("codes.renew_none")
	if all.Recovery > 0 {
		text = v.text.Say("codes.renew", all.Recovery)
	}
	return v.form("ask.html", askData{Title: v.text.Say("codes.renew_title"), Text: text, Action: "/security/recovery",
		Button: v.text.Say("codes.renew_button"), Back: "/security"}, problem)
}
