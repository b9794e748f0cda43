package ops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"postern/authstore/secret"
	"postern/gateway/live"
)

// Client asks a running gateway on its operations listener.
type Client struct {
	Address string          // "host:port" or "unix:PATH"
	Keys    *secret.Keyring // for what needs a pass
}

// clientTime bounds a question.
const clientTime = 5 * time.Second

// Ready returns what the gateway says where it takes logins.
func (c *Client) Ready(ctx context.Context) (string, error) {
	text, err := c.ask(ctx, http.MethodGet, &url.URL{Path: "/readyz"})
	return string(text), err
}

// List tells of the chosen sessions, the oldest first.
func (c *Client) List(ctx context.Context, sel live.Selection) (list []live.Session, err error) {
	text, err := c.ask(ctx, http.MethodGet, &url.URL{Path: "/sessions", RawQuery: query(sel).Encode()})
	if err != nil {
		return nil, err
	}
	return list, json.Unmarshal(text, &list)
}

// End ends the chosen sessions; a selection of all is refused.
func (c *Client) End(ctx context.Context, sel live.Selection) (e Ended, err error) {
	text, err := c.ask(ctx, http.MethodDelete, &url.URL{Path: "/sessions", RawQuery: query(sel).Encode()})
	if err != nil {
		return e, err
	}
	return e, json.Unmarshal(text, &e)
}

// maxAnswer bounds an answer: some hundred bytes for each session.
const maxAnswer = 64 << 20

func (c *Client) ask(ctx context.Context, method string, what *url.URL) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, clientTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+what.RequestURI(), nil)
	if err != nil {
		return nil, err
	}
	if c.Keys != nil {
		pass, err := newPass(c.Keys, method, what.RequestURI())
		if err != nil {
			return nil, err
		}
		req.Header.Set(passHeader, pass)
	}
	client := http.Client{Transport: &http.Transport{DialContext: c.dial}}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // its URL has a host of ours, which is not where we asked
		}
		return nil, fmt.Errorf("no gateway answers on %s ([operations] address): %w; start it, or name the configuration that it runs with by --config", c.Address, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case resp.StatusCode == http.StatusForbidden:
		return nil, fmt.Errorf("the gateway on %s has another key file, or its clock is half a minute off; after \"postern key add\" reload it (SIGHUP)", c.Address)
	case resp.StatusCode == http.StatusServiceUnavailable:
		return nil, fmt.Errorf("the gateway takes no logins: %s", strings.TrimSpace(string(text)))
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("the gateway on %s answers %s: %.200s", c.Address, resp.Status, strings.TrimSpace(string(text)))
	}
	return text, err
}

func (c *Client) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	var d net.Dialer
	if path, ok := strings.CutPrefix(c.Address, "unix:"); ok {
		return d.DialContext(ctx, "unix", path)
	}
	return d.DialContext(ctx, "tcp", c.Address)
}
