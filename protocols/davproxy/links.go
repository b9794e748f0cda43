package davproxy

func (f *filter) href(start *token) error {
	parent := f.tokens.parent(1)
	h := &f.link
	if err := h.read(f.tokens, start); err != nil {
		return err
	}
	r := f.response
	if parent.word != davResponse || f.tokens.depth() != 2 || r == nil {
		var ok bool
		if f.text, ok = f.appendMapped(f.text[:0], parent.name, h.text); ok {
			return f.putHref(f.text)
		}
		return nil
	}
	t, path, ok := f.folder.outward(f.m, h.text)
	if !ok && f.single {
		t, path, ok = f.at, []byte(f.at.path()), true
	}
	first := !r.located
	if first {
		r.located, r.target = true, t // nowhere, if it isn't ours
	}
	if !ok || !f.asked(t) || !first && f.at.place == home && t != r.target { // what the first one is was judged, or will be, and nothing else
		return f.decide(false)
	}
	if err := f.putHref(path); err != nil {
		return err
	}
	return f.decide(false)
}

// putHref passes the href that was read, with another text.
func (f *filter) putHref(text []byte) error {
	h := &f.link
	h.whole = h.appendTo(h.whole[:0], text)
	return f.put(h.whole)
}

// appendMapped appends what an href inside a property becomes; nothing, if it leads elsewhere.
func (f *filter) appendMapped(dst []byte, property name, href []byte) ([]byte, bool) {
	own := target{place: principal, id: f.m.id}
	switch property {
	case name{nsDAV, "current-user-principal"}, name{nsDAV, "principal-URL"}:
		return own.appendPath(dst), true
	case name{nsCalDAV, "calendar-home-set"}:
		return target{place: home, kind: calendar, id: f.m.id}.appendPath(dst), true
	case name{nsCardDAV, "addressbook-home-set"}:
		return target{place: home, kind: contacts, id: f.m.id}.appendPath(dst), true
	}
	text := string(href)
	switch property {
	case name{nsDAV, "owner"}:
		return own.appendPath(dst), f.m.isPrincipal(text)
	case name{nsCalDAV, "recipient"}, name{nsCalDAV, "calendar-user-address-set"}:
		if isMailto(text) {
			return append(dst, text...), true
		}
		if f.m.isPrincipal(text) { // which may be the home too
			return own.appendPath(dst), true
		}
	case name{nsCalendar, "source"}: // where a subscription comes from: it leads to no place here
		if hasScheme(text) && !f.m.leads(text) {
			return append(dst, text...), true
		}
	}
	t, ok := f.m.outward(text)
	if !ok || !f.open(t) || !f.mentions(t) {
		return dst, false
	}
	return t.appendPath(dst), true
}

// mentions tells whether a property may lead to a target that the grant opens: the home, what lies in the collection that was asked,
// and of other collections those of the kind, where the home or the inbox names them.
func (f *filter) mentions(t target) bool {
	switch {
	case t.place == home, t.kind.isBox(), t.in(f.at):
		return true
	case t.place != collection || f.at.place != home && f.at.kind != inbox:
		return false
	}
	k, err := f.kindOf(t)
	return err == nil && k == t.kind
}
