package gateway

import (
	"context"
	"fmt"

	"postern/gateway/notice"
	"postern/protocols"
)

var noticeTLS = map[protocols.Security]notice.TLS{
	protocols.ImplicitTLS: notice.Implicit, protocols.StartTLS: notice.StartTLS, protocols.PlainText: notice.Plain,
}

// buildNotices makes the sender of a generation's notices; nil: there are none.
func (g *Gateway) buildNotices(ctx context.Context, n *generation) error {
	c := &n.cfg.Notices
	if c.Address == "" {
		return nil
	}
	r, err := relayRoute(c)
	if err != nil {
		return noticesError(err)
	}
	if c.User != "" { // it is read at each login, and shall not be missed at the first one only
		password, err := readPassword(c.PasswordFile)
		if err != nil {
			return noticesError(err)
		}
		clear(password)
	}
	epoch, err := g.desk.truth.Epoch(ctx)
	if err != nil {
		return err
	}
	n.notices, err = notice.New(notice.Options{
		Outbox: g.desk.truth, Epoch: epoch, Address: c.Address, TLS: noticeTLS[r.Security], TLSConfig: r.TLS,
		User: c.User, Password: func() ([]byte, error) { return readPassword(c.PasswordFile) }, From: c.From, Site: n.cfg.Portal.URL,
		Places: n.atlas, Observe: g.metrics.Notice, Log: g.log,
	})
	return noticesError(err)
}

func noticesError(err error) error {
	if err != nil {
		err = fmt.Errorf("[notices]: %w", err)
	}
	return err
}

// sendNotices sends until the generation accepts no more; what is under way then is sent again by the next one.
func (g *Gateway) sendNotices(n *generation) {
	if n.notices != nil {
		g.servers.Go(func() { n.notices.Run(n.accepting) })
	}
}
