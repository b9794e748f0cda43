package gateway

import (
	"context"
	"time"

	"postern/config"
	"postern/protocols"
	"postern/protocols/imapproxy"
	"postern/protocols/popproxy"
	"postern/protocols/sieveproxy"
	"postern/protocols/submission"
)

// lineProtocol is a protocol with a front door of protocols.FrontDoor's kind.
type lineProtocol struct {
	door  func(g *Gateway, cfg *config.Config, offers *protocols.Offers) protocols.FrontDoor
	idle  func(cfg *config.Config) time.Duration              // of its sessions
	probe func(ctx context.Context, r *protocols.Route) error // of "postern check"

	// ask asks a backend what clients are told of it before they log in; nil: nothing.
	ask func(ctx context.Context, r *protocols.Route) (protocols.Capabilities, error)
	// asksInside tells that a backend says so only to who has logged in.
	asksInside bool
}

func idle(d time.Duration) func(*config.Config) time.Duration {
	return func(*config.Config) time.Duration { return d }
}

var lineProtocols = map[string]lineProtocol{
	imapproxy.Protocol: {
		door: func(_ *Gateway, cfg *config.Config, _ *protocols.Offers) protocols.FrontDoor {
			return imapproxy.Door{NoCompress: !cfg.IMAP.Compress}
		},
		idle:  func(cfg *config.Config) time.Duration { return cfg.IMAP.IdleTimeout.Duration() },
		probe: imapproxy.Probe,
	},
	submission.Protocol: {
		door:  submissionDoor,
		idle:  idle(submission.IdleTimeout),
		probe: submission.Probe,
		ask:   submission.Ask,
	},
	popproxy.Protocol: {
		door: func(_ *Gateway, _ *config.Config, offers *protocols.Offers) protocols.FrontDoor {
			return popproxy.Door{Offers: offers}
		},
		idle:  idle(popproxy.IdleTimeout),
		probe: popproxy.Probe,
		ask:   popproxy.Ask,
	},
	sieveproxy.Protocol: {
		door: func(_ *Gateway, _ *config.Config, offers *protocols.Offers) protocols.FrontDoor {
			return sieveproxy.Door{Offers: offers}
		},
		idle:       idle(sieveproxy.IdleTimeout),
		probe:      sieveproxy.Probe,
		ask:        sieveproxy.Ask,
		asksInside: true,
	},
}

func submissionDoor(g *Gateway, cfg *config.Config, offers *protocols.Offers) protocols.FrontDoor {
	d := &submission.Door{Name: serverName(cfg), Offers: offers, PassSmuggling: cfg.Submission.Smuggling == "pass"}
	if cfg.Submission.Sender == "own" {
		d.Owner, d.Log = g.store.Owner, g.log
	}
	return d
}
