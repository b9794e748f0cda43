package testlab

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
)

// note hears what happens in the page. It must not call the browser.
func (p *Page) note(ev any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch ev := ev.(type) {
	case *page.EventFrameRequestedNavigation:
		p.loads(ev.FrameID, ev.Disposition == page.ClientNavigationDispositionCurrentTab)
	case *page.EventFrameStartedLoading:
		p.loads(ev.FrameID, true)
	case *page.EventFrameStoppedLoading:
		p.loads(ev.FrameID, false)
	case *page.EventNavigatedWithinDocument:
		p.loads(ev.FrameID, false)
	case *page.EventJavascriptDialogOpening:
		p.problem("dialogue: %s: %s", ev.Type, ev.Message)
		go try(p, page.HandleJavaScriptDialog, page.HandleJavaScriptDialogParams{Accept: true}) // nobody else can answer it
	case *network.EventRequestWillBeSent:
		p.asked[ev.RequestID] = ev.Request.Method + " " + ev.Request.URL
	case *network.EventResponseReceived:
		p.answered(ev)
	case *network.EventLoadingFailed:
		if !ev.Canceled && ev.ErrorText != "net::ERR_ABORTED" { // aborted: a download, or no content
			p.problem("not loaded: %s: %s %s", p.asked[ev.RequestID], ev.ErrorText, ev.BlockedReason)
		}
	case *runtime.EventExceptionThrown:
		p.problem("uncaught: %s %s:%d", exception(ev.ExceptionDetails), ev.ExceptionDetails.URL, ev.ExceptionDetails.LineNumber+1)
	case *runtime.EventConsoleAPICalled:
		if ev.Type == runtime.ConsoleAPICalledTypeError || ev.Type == runtime.ConsoleAPICalledTypeAssert || ev.Type == runtime.ConsoleAPICalledTypeWarning {
			var said []string
			for _, arg := range ev.Args {
				said = append(said, arg.Description+string(arg.Value))
			}
			p.problem("console: %s", strings.Join(said, " "))
		}
	case *log.EventEntryAdded:
		// What the network did is told above, what the policy forbids below.
		if e := ev.Entry; e.Level == log.EntryLevelError && e.Source != log.EntrySourceNetwork && !strings.Contains(e.Text, "Content Security Policy directive") {
			p.problem("log: %s %s", e.Text, e.URL)
		}
	case *audits.EventIssueAdded:
		p.issue(ev.Issue)
	}
}

func (p *Page) loads(frame cdp.FrameID, yes bool) {
	if p.target != nil && string(frame) == string(p.target.TargetID) {
		p.loading = yes
	}
}

// answered keeps the answer that is the page. What it consists of has to be there; the page itself may tell a person that something is not.
func (p *Page) answered(ev *network.EventResponseReceived) {
	r := ev.Response
	document := ev.Type == network.ResourceTypeDocument && p.target != nil && string(ev.FrameID) == string(p.target.TargetID)
	if document {
		p.status, p.header = int(r.Status), make(http.Header)
		for name, value := range r.Headers {
			p.header.Set(name, fmt.Sprint(value))
		}
	}
	if r.Status >= 500 || r.Status >= 400 && !document {
		p.problem("status %d: %s", r.Status, p.asked[ev.RequestID])
	}
}

func (p *Page) issue(i *audits.InspectorIssue) {
	switch d := i.Details; {
	case d.ContentSecurityPolicyIssueDetails != nil:
		c := d.ContentSecurityPolicyIssueDetails
		p.problem("content security policy: %s forbids %s", c.ViolatedDirective, c.BlockedURL)
	case d.GenericIssueDetails != nil:
		g := d.GenericIssueDetails
		p.problem("issue: %s %s", g.ErrorType, g.ViolatingNodeAttribute)
	case d.CookieIssueDetails != nil:
		c := d.CookieIssueDetails
		if len(c.CookieExclusionReasons) > 0 {
			p.problem("cookie: %v %v %s", c.CookieExclusionReasons, c.Operation, c.CookieURL)
		}
	case d.MixedContentIssueDetails != nil, d.QuirksModeIssueDetails != nil, d.DeprecationIssueDetails != nil, d.BlockedByResponseIssueDetails != nil, d.CorsIssueDetails != nil:
		p.problem("issue: %s", i.Code)
	}
}

func exception(e *runtime.ExceptionDetails) string {
	if e.Exception != nil && e.Exception.Description != "" {
		return e.Exception.Description
	}
	return e.Text
}

func (p *Page) problem(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(p.problems, text) {
		p.problems = append(p.problems, text)
	}
}

// Expect says that a problem with this text in it will come, once or more often, and is right. It fails the test if none comes.
func (p *Page) Expect(text string) *Page {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expected = append(p.expected, text)
	return p
}

// judge fails the test for what went wrong unexpectedly, and what was expected and did not.
func (p *Page) judge() {
	p.t.Helper()
	if p.target != nil {
		try(p, runtime.Evaluate, runtime.EvaluateParams{Expression: "0"}) // after it, all that happened was heard
	}
	p.mu.Lock()
	came := make([]bool, len(p.expected))
	var wrong []string
	for _, problem := range p.problems {
		i := slices.IndexFunc(p.expected, func(text string) bool { return strings.Contains(problem, text) })
		if i < 0 {
			wrong = append(wrong, problem)
			continue
		}
		came[i] = true
	}
	for i, text := range p.expected {
		if !came[i] {
			wrong = append(wrong, fmt.Sprintf("expected, but it did not come: %q", text))
		}
	}
	p.mu.Unlock()
	for _, problem := range wrong {
		p.t.Errorf("page %s: %s", p.name, problem)
	}
	if p.t.Failed() && !p.shown && p.status != 0 {
		p.t.Log(p.show())
	}
}

// fatal ends the test with what stands on the page.
func (p *Page) fatal(format string, args ...any) {
	p.t.Helper()
	shown := p.show()
	p.shown = true
	p.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), shown)
}

// show tells what a person sees, and where a picture of it is.
func (p *Page) show() string {
	var where, text string
	p.evaluate("location.href", &where)
	p.evaluate(pageText, &text)
	picture := "none"
	if png, err := p.capture(); err == nil {
		dir := filepath.Join(os.TempDir(), "postern-failures")
		file := filepath.Join(dir, fmt.Sprintf("%s-%s-%d.png", fileName(p.t.Name()), fileName(p.name), time.Now().UnixMilli()))
		if os.MkdirAll(dir, 0o777) == nil && os.WriteFile(file, png, 0o666) == nil {
			picture = file
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprintf("page:    %s (status %d)\npicture: %s\nwent wrong: %s\nshows:\n%s", where, p.status, picture, strings.Join(p.problems, "; "), tail(text))
}

func fileName(s string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(`/\ :"'`, r) {
			return '-'
		}
		return r
	}, s)
}
