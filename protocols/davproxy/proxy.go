package davproxy

import (
	"errors"
	"io"
	"log/slog"
	"net/http"

	"postern/protocols"
	"postern/protocols/davproxy/upstream"
)

// exchange is one request on its way to a backend and back.
type exchange struct {
	*session
	w      *writer
	r      *http.Request
	m      *mount
	at     target
	to     target    // COPY and MOVE: the destination
	doc    *document // nil: the body is no XML
	header http.Header
	body   io.ReadCloser // nil: none
	length int64         // -1: unknown
	named  int           // calendars that the body names
	out    statusWriter  // of relayXML
}

// forward leads a request to the backend, if what it is about is of the mount's kind.
func (ss *session) forward(w *writer, r *http.Request, t target) answer {
	m, err := ss.mountOf(t.kind)
	switch {
	case errors.Is(err, protocols.ErrNoRoute) && t.place == home:
		return ss.serve(w, r, t)
	case errors.Is(err, protocols.ErrNoRoute):
		return notThere
	case m == nil:
		return ss.failed("", err)
	case err != nil:
		return ss.failed(m.route.Backend, err)
	case m.inward(t) == "":
		return notThere
	}
	x := &exchange{session: ss, w: w, r: r, m: m, at: t}
	for _, prepare := range []func() answer{x.checkKind, x.makeHeader, x.destination, x.takeBody} {
		if refusal := prepare(); refusal.status != 0 {
			return refusal
		}
	}
	resp, err := x.send()
	if err != nil {
		return ss.failed(m.route.Backend, err)
	}
	defer discard(resp)
	return x.relay(resp)
}

// failed answers an error on the way to a backend, and logs it.
func (ss *session) failed(backend string, err error) answer {
	if e, ok := errors.AsType[*endedError](err); ok {
		return refused(e.cause)
	}
	if e, ok := errors.AsType[*upstream.BodyError](err); ok && ss.ctx.Err() == nil {
		return unread(e)
	}
	if ss.ctx.Err() == nil {
		level, message := slog.LevelWarn, "backend"
		if errors.Is(err, protocols.ErrCredential) { // nobody gets in
			level, message = slog.LevelError, "the backend refused the gateway's login"
		}
		ss.server.o.Log.Log(ss.ctx, level, message, "conn", ss.facts.Conn, "proto", Protocol, "account", ss.grant.Account, "backend", backend, "err", err)
	}
	return unavailable
}

// makesCollection tells whether a method's target is not there yet.
func makesCollection(method string) bool { return method == "MKCOL" || method == "MKCALENDAR" }

// checkKind keeps contacts out of the calendars' mount and the other way round, whatever the path says.
func (x *exchange) checkKind() answer {
	switch {
	case x.at.place == home:
		return answer{}
	case makesCollection(x.r.Method) && x.m.isBox(x.at):
		return wrongPlace
	case makesCollection(x.r.Method):
		return answer{}
	}
	return x.sameKind(x.at)
}

func (x *exchange) sameKind(t target) answer {
	k, err := x.server.kinds.of(x.session, x.m, t)
	switch {
	case errors.Is(err, errNoCollection):
		return notThere
	case err != nil:
		return x.failed(x.m.route.Backend, err)
	case k != t.kind:
		return notThere
	}
	return answer{}
}

// send sends the request, and forgets what it may change.
func (x *exchange) send() (*http.Response, error) {
	req := x.m.request(x.ctx, x.r.Method, x.m.inward(x.at), x.header, x.body, x.length)
	switch x.r.Method {
	case "MKCOL", "MKCALENDAR", "DELETE", "COPY", "MOVE", "PROPPATCH":
		return x.change(req)
	}
	return x.do(x.m.route, req)
}

// change sends a request after which collections may be of another kind, or gone.
func (x *exchange) change(req *http.Request) (*http.Response, error) {
	x.forget()
	defer x.forget() // who looked in the meantime may have seen it as it was
	resp, err := x.do(x.m.route, req)
	if err != nil || resp.StatusCode >= 500 {
		x.server.kinds.doubt(x.m, x.at)
		if x.to.place != nowhere {
			x.server.kinds.doubt(x.m, x.to)
		}
	}
	return resp, err
}

func (x *exchange) forget() {
	x.server.kinds.forget(x.m, x.at)
	if x.to.place != nowhere {
		x.server.kinds.forget(x.m, x.to)
	}
}
