package command

import (
	"net/netip"
	"testing"
	"time"

	"postern/authstore"
)

func TestDetail(t *testing.T) {
	from := authstore.PasswordEdit{Label: "Phone", Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
	to := authstore.PasswordEdit{Label: "Old phone", Expires: time.Date(2027, 1, 2, 3, 4, 0, 0, time.Local)}
	use := authstore.NewUse{Protocol: "imap", App: "Mail 1", Network: netip.MustParsePrefix("192.0.2.0/24"), Operator: "AS64496 Example Net", NewApp: true}
	for want, e := range map[string]authstore.Event{
		"app password 3, imap, Mail 1, 192.0.2.0/24, AS64496 Example Net":        {Kind: authstore.KindNewUse, Detail: use.String()},
		"app password 3, label Old phone, expires 2027-01-02 03:04, networks []": {Kind: "password.edited", Detail: authstore.Edited{From: from, To: to}.String()},
		"app password 3, label Phone, expires -, networks [192.0.2.0/24]":        {Kind: "password.edited", Detail: authstore.Edited{From: to, To: from}.String()},
		"phone lost": {Kind: "password.revoked", Detail: "phone lost"},
		"{":          {Kind: authstore.KindNewUse, Detail: "{"},
	} {
		e.Password = 3
		if got := detail(e); got != want {
			t.Errorf("detail(%+v) = %q, want %q", e, got, want)
		}
	}
}
