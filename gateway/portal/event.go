package portal

import (
	"net/netip"
	"strings"
	"time"

	"postern/authstore"
)

// line is one event in the reader's words.
type line struct {
	ID     int64
	At     time.Time
	Text   string
	More   []string // what there is to say besides
	Actor  string
	Client netip.Addr
	Agent  string
}

// lines puts events into words. named are the app passwords that they are about.
func (v *visit) lines(events []authstore.Event, named map[authstore.PasswordID]authstore.AppPassword) []line {
	var list []line
	for _, e := range events {
		l := line{ID: e.ID, At: e.At, Actor: v.actorWords(e.Actor), Client: e.Actor.Client, Agent: e.Actor.Agent}
		l.Text, l.More = v.sentence(e, named[e.Password])
		list = append(list, l)
	}
	return list
}

// actorWords says who did it.
func (v *visit) actorWords(a authstore.Actor) string {
	switch {
	case a.Name == Protocol && v.administers:
		return v.text.Say("actor.person")
	case a.Name == Protocol:
		return v.text.Say("actor.you")
	case a.Name == "gateway":
		return v.text.Say("actor.gateway")
	case a.Name == "directory":
		return v.text.Say("actor.directory")
	case a.Name == "policy":
		return v.text.Say("actor.policy")
	case a.Name == "provider":
		return v.text.Say("actor.provider")
	}
	if address, ok := strings.CutPrefix(a.Name, "admin:"); ok {
		return v.text.Say("actor.administrator", address)
	}
	return v.text.Say("actor.admin", a.Name)
}

// sentence says what an event tells. p is its app password, zero where it has none.
func (v *visit) sentence(e authstore.Event, p authstore.AppPassword) (text string, more []string) {
	key, label := "event."+e.Kind, p.Label
	if other := "admin_event." + e.Kind; v.administers && v.text.Has(other) { // the other one speaks to the person
		key = other
	}
	switch e.Kind {
	case "password.created":
		more = v.opened(p)
		if p.MadeBy != "" {
			more = append(more, v.text.Say("event.made_by", p.MadeBy))
		}
		return v.text.Say(key, label), more
	case "password.rekeyed":
		return v.text.Say(key, label), nil
	case "password.revoked":
		return v.text.Say(key, label), v.reason(e)
	case "password.revoked_all", "account.suspended":
		return v.text.Say(key), v.reason(e)
	case "password.edited":
		return v.text.Say(key, label), v.edits(e.Detail)
	case authstore.KindFirstUse, authstore.KindNewUse:
		return v.newUse(e, label)
	case authstore.KindIdle:
		return v.text.Say(key, label), v.idle(e.Detail)
	case authstore.KindYearly:
		return v.text.Say(key), nil
	}
	if e.Kind == "account.gone" && e.Detail == "reused" {
		return v.text.Say(key + ".reused"), nil
	}
	if e.Kind == "portal.session_ended" && e.Detail != "" {
		e.Detail = v.text.Browser(e.Detail)
	}
	if e.Kind == "portal.sessions_ended" && e.Actor.Administers() { // not even one of them was his
		key = "event.portal.all_ended"
	}
	switch with, plain := key+".with", key+".plain"; {
	case e.Detail != "" && v.text.Has(with):
		return v.text.Say(with, e.Detail), nil
	case v.text.Has(plain):
		return v.text.Say(plain), nil
	case v.text.Has(key):
		return v.text.Say(key), nil
	}
	return v.text.Say("event.other", e.Kind), detail(e.Detail)
}

func detail(d string) []string {
	if d == "" {
		return nil
	}
	return []string{d}
}

// opened says what an app password opens from the first day to the last: that can't be changed.
func (v *visit) opened(p authstore.AppPassword) []string {
	var parts []string
	for _, one := range v.opens(p) {
		parts = append(parts, one.String())
	}
	if len(parts) == 0 {
		return nil
	}
	return []string{v.text.Say("event.opens", strings.Join(parts, "; "))}
}

// reason is what an administrator gave.
func (v *visit) reason(e authstore.Event) []string {
	switch {
	case e.Actor.Name == "policy":
		return []string{v.text.Say("event.idle_ended")}
	case e.Detail == "" || e.Detail == whyPortal:
		return nil
	}
	return []string{v.text.Say("event.reason", e.Detail)}
}

// idle says when an app password that is not used will end.
func (v *visit) idle(detail string) []string {
	w, err := authstore.ParseIdleWarning(detail)
	if err != nil {
		return nil
	}
	return []string{v.text.Say("event.idle_ends", v.text.Time(w.Ends.In(v.zone)))}
}

// edits says what was changed of an app password.
func (v *visit) edits(detail string) []string {
	e, err := authstore.ParseEdited(detail)
	if err != nil {
		return nil
	}
	var more []string
	if e.From.Label != e.To.Label {
		more = append(more, v.text.Say("event.renamed", e.From.Label, e.To.Label))
	}
	if !e.From.Expires.Equal(e.To.Expires) {
		if e.To.Expires.IsZero() {
			more = append(more, v.text.Say("event.expires_never"))
		} else {
			more = append(more, v.text.Say("event.expires", v.text.Time(e.To.Expires.In(v.zone))))
		}
	}
	if from, to := networkList(e.From.Networks), networkList(e.To.Networks); from != to {
		if to == "" {
			more = append(more, v.text.Say("event.networks_any"))
		} else {
			more = append(more, v.text.Say("event.networks", to))
		}
	}
	return more
}

func networkList(list []netip.Prefix) string {
	var words []string
	for _, n := range list {
		words = append(words, networkText(n))
	}
	return strings.Join(words, ", ")
}

// newUse says that something used an app password that had not before.
func (v *visit) newUse(e authstore.Event, label string) (text string, more []string) {
	n, err := authstore.ParseNewUse(e.Detail)
	key := "event." + e.Kind
	if e.Kind == authstore.KindNewUse && n.NewApp != n.NewOperator {
		key += map[bool]string{true: "_app", false: "_network"}[n.NewApp]
	}
	text = v.text.Say(key, label)
	if err != nil {
		return text, nil
	}
	app := n.App
	if app == "" {
		app = v.text.Say("words.nameless_for", v.protocol(n.Protocol))
	} else {
		app += " (" + v.protocol(n.Protocol) + ")"
	}
	return text, []string{app + ", " + v.network(n.Network, n.Operator)}
}
