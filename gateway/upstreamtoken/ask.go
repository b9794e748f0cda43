package upstreamtoken

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	askTime   = 10 * time.Second // one question to an authorization server
	maxAnswer = 256 << 10        // bytes

	shortLife = 5 * time.Minute // of an access token of which the server does not say how long it lives
	longLife  = 24 * time.Hour  // what is believed at most

	longestWait = 10 * time.Minute // of Retry-After
)

// errRubbish is of an answer that is none of the protocol's.
var errRubbish = errors.New("it answers something that is no answer of an authorization server")

// Answer is what an authorization server said in place of what it was asked for. Nothing else of its words is kept: they may hold what is secret.
type Answer struct {
	Status int
	Code   string        // of RFC 6749 section 5.2; empty: none was given, or in another form
	Detail string        // Microsoft's number of the fault: AADSTS50076
	Wait   time.Duration // how long it asks to be left alone; zero: it does not say
}

func (a *Answer) Error() string {
	text := fmt.Sprintf("it answers %d", a.Status)
	if a.Code != "" {
		text += " " + a.Code
	}
	if a.Detail != "" {
		text += " (" + a.Detail + ")"
	}
	return text
}

// ends are the answers to a refresh that no other try changes: the person has to consent again.
var ends = map[string]bool{"invalid_grant": true, "interaction_required": true, "consent_required": true, "login_required": true}

// ended is the code of an error that no other try changes; empty: another try may go well.
func ended(err error) string {
	if a, ok := errors.AsType[*Answer](err); ok && a.Status >= 400 && a.Status < 500 && ends[a.Code] {
		return a.Code
	}
	return ""
}

// token is what an authorization server gives.
type token struct {
	access, refresh, id string
	life                time.Duration // of the access token
}

// ask asks the token endpoint, with the client's own credential.
func (p *server) ask(ctx context.Context, form url.Values) (token, error) {
	e, err := p.endpoints(ctx)
	if err != nil {
		return token{}, err
	}
	body, err := p.post(ctx, e, e.Token, form)
	if err != nil {
		return token{}, err
	}
	var a struct {
		Access  string      `json:"access_token"`
		Type    string      `json:"token_type"`
		Refresh string      `json:"refresh_token"`
		ID      string      `json:"id_token"`
		Life    json.Number `json:"expires_in"` // some write it as text
	}
	if json.Unmarshal(body, &a) != nil || a.Access == "" {
		return token{}, errRubbish
	}
	if a.Type != "" && !strings.EqualFold(a.Type, "Bearer") {
		return token{}, errors.New("it gives tokens of another type than Bearer")
	}
	life := shortLife
	if n, err := a.Life.Int64(); err == nil && n > 0 {
		life = time.Duration(min(n, int64(longLife/time.Second))) * time.Second
	}
	return token{access: a.Access, refresh: a.Refresh, id: a.ID, life: life}, nil
}

// post sends a form with the client's own credential.
func (p *server) post(ctx context.Context, e Endpoints, to string, form url.Values) ([]byte, error) {
	if p.Secret == "" || !e.Basic {
		form.Set("client_id", p.ClientID)
		if p.Secret != "" {
			form.Set("client_secret", p.Secret)
		}
	}
	return p.send(ctx, http.MethodPost, to, form)
}

// send asks once and gives the answer's body, of at most maxAnswer bytes; *Answer where it is none of 200. No redirect is followed.
func (p *server) send(ctx context.Context, method, to string, form url.Values) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, to, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json")
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if p.Secret != "" && form.Get("client_id") == "" {
			r.SetBasicAuth(url.QueryEscape(p.ClientID), url.QueryEscape(p.Secret)) // RFC 6749 section 2.3.1
		}
	}
	resp, err := p.http.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case resp.StatusCode != http.StatusOK:
		return nil, answerOf(resp, body)
	case err != nil:
		return nil, err
	case len(body) > maxAnswer:
		return nil, errRubbish
	}
	if a := answerOf(resp, body); a.Code != "" { // some answer 200 to what they refuse
		return nil, a
	}
	return body, nil
}

// code is what an error may be called (RFC 6749 section 5.2); what else stands there is not repeated.
var code = regexp.MustCompile(`^[a-z_]{1,64}$`)

var microsoftFault = regexp.MustCompile(`^AADSTS[0-9]{1,9}`)

func answerOf(resp *http.Response, body []byte) *Answer {
	a := &Answer{Status: resp.StatusCode}
	var said struct {
		Code   string `json:"error"`
		Detail string `json:"error_description"`
	}
	if json.Unmarshal(body, &said) == nil && code.MatchString(said.Code) {
		a.Code, a.Detail = said.Code, microsoftFault.FindString(said.Detail)
	}
	if n, err := strconv.Atoi(cmp.Or(resp.Header.Get("Retry-After"), "0")); err == nil && n > 0 {
		a.Wait = min(time.Duration(min(n, 1<<20))*time.Second, longestWait)
	}
	return a
}
