package testlab

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/storage"
	"github.com/chromedp/chromedp"
)

// pagePatience is how long a page may take to show what is waited for.
const pagePatience = 15 * time.Second

// Page is one person's browser: what they see and do. Things are found by the names that a screen reader says: a field by its label, a button and a link
// by its text. Whatever is done waits for the page that follows from it. One goroutine may use it.
type Page struct {
	t       testing.TB
	browser *Chromium
	ctx     context.Context
	target  *chromedp.Target
	context cdp.BrowserContextID
	name    string // for pictures
	shown   bool

	agent, languages, downloads string
	scriptless                  bool

	mu       sync.Mutex // guards what follows
	loading  bool
	status   int
	header   http.Header
	asked    map[network.RequestID]string
	problems []string
	expected []string
}

// do runs a command of the DevTools protocol; what it refuses ends the test.
func do[P, R any](p *Page, c cdp.Command[P, R], params P) R {
	p.t.Helper()
	r, err := try(p, c, params)
	if err != nil {
		p.fatal("%s: %v", c.Method, err)
	}
	return r
}

func try[P, R any](p *Page, c cdp.Command[P, R], params P) (R, error) {
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	return cdp.Call(ctx, p.target, c, params)
}

// inBrowser is do for commands to the whole browser.
func inBrowser[P, R any](p *Page, c cdp.Command[P, R], params P) R {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	r, err := cdp.Call(ctx, chromedp.FromContext(p.ctx).Browser, c, params)
	if err != nil {
		p.fatal("%s: %v", c.Method, err)
	}
	return r
}

func on(yes bool) *bool { return &yes }

func (p *Page) setUp() {
	p.t.Helper()
	do(p, audits.Enable, cdp.Empty{})
	do(p, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
	version := do(p, browser.GetVersion, cdp.Empty{})
	p.agent = strings.Replace(version.UserAgent, "Headless", "", 1)
	p.downloads = Dir(p.t)
	inBrowser(p, browser.SetDownloadBehavior, browser.SetDownloadBehaviorParams{Behavior: browser.SetDownloadBehaviorBehaviorAllowAndName, BrowserContextID: p.context, DownloadPath: p.downloads, EventsEnabled: on(true)})
	p.Desktop().Light().Zone("UTC").Languages("en")
}

// Tab opens another tab of the same person: with the same cookies.
func (p *Page) Tab() *Page {
	p.t.Helper()
	return p.browser.open(p.t, chromedp.WithExistingBrowserContext(p.context))
}

// Named gives the page a name for messages, for tests with several.
func (p *Page) Named(name string) *Page {
	p.name = name
	return p
}

// Desktop makes the window 1280 by 900 pixels.
func (p *Page) Desktop() *Page { return p.size(1280, 900, false) }

// Phone makes it a phone's, 360 by 740 pixels.
func (p *Page) Phone() *Page { return p.size(360, 740, true) }

func (p *Page) size(width, height int64, mobile bool) *Page {
	p.t.Helper()
	do(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1, Mobile: mobile})
	return p
}

// Dark prefers dark colours; Light ends that. Nothing on the lab's pages moves on the way: Axe would look at colours in between.
func (p *Page) Dark() *Page { return p.colours("dark") }

// Light prefers light colours, as pages do from the start.
func (p *Page) Light() *Page { return p.colours("light") }

func (p *Page) colours(scheme string) *Page {
	p.t.Helper()
	do(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}})
	p.Eval("document.getAnimations().forEach(a => a.finish())", nil) // for pages that don't ask
	return p
}

// Zone puts the person in a time zone, such as "Europe/Berlin".
func (p *Page) Zone(name string) *Page {
	p.t.Helper()
	do(p, emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: name})
	return p
}

// Languages are what the person reads, such as "de,en", the best first.
func (p *Page) Languages(tags string) *Page {
	p.languages = tags
	return p.introduce()
}

// UserAgent is what the browser calls itself.
func (p *Page) UserAgent(text string) *Page {
	p.agent = text
	return p.introduce()
}

func (p *Page) introduce() *Page {
	p.t.Helper()
	do(p, emulation.SetUserAgentOverride, emulation.SetUserAgentOverrideParams{UserAgent: p.agent, AcceptLanguage: p.languages})
	return p
}

// WithoutScript lets no script of a page run, from the next page on.
func (p *Page) WithoutScript() *Page {
	p.t.Helper()
	do(p, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	p.scriptless = true
	return p
}

// Open goes to an address, and waits until it is loaded.
func (p *Page) Open(address string) *Page {
	p.t.Helper()
	answer := do(p, page.Navigate, page.NavigateParams{URL: address})
	if answer.ErrorText != "" && answer.ErrorText != "net::ERR_ABORTED" { // aborted: it was a download
		p.fatal("open %s: %s", address, answer.ErrorText)
	}
	return p.settle()
}

// Reload is the browser's button. A form that was sent is sent again, as browsers do once their person said yes.
func (p *Page) Reload() *Page {
	p.t.Helper()
	p.expectLoad()
	do(p, page.Reload, page.ReloadParams{})
	return p.settle()
}

// Back is the browser's button.
func (p *Page) Back() *Page { return p.travel(-1) }

// Forward is the browser's button.
func (p *Page) Forward() *Page { return p.travel(1) }

func (p *Page) travel(steps int) *Page {
	p.t.Helper()
	h := do(p, page.GetNavigationHistory, cdp.Empty{})
	i := int(h.CurrentIndex) + steps
	if i < 0 || i >= len(h.Entries) {
		p.fatal("the history has no page at %+d", steps)
	}
	p.expectLoad()
	do(p, page.NavigateToHistoryEntry, page.NavigateToHistoryEntryParams{EntryID: h.Entries[i].ID})
	return p.settle()
}

func (p *Page) expectLoad() {
	p.mu.Lock()
	p.loading = true
	p.mu.Unlock()
}

// settle waits until what was begun is loaded.
func (p *Page) settle() *Page {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		try(p, runtime.Evaluate, runtime.EvaluateParams{Expression: "0"}) // after it, all that came before was heard
		p.mu.Lock()
		loading := p.loading
		p.mu.Unlock()
		if !loading {
			return p
		}
		if time.Now().After(deadline) {
			p.fatal("the page is not loaded after %v", patience)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// world is where the lab's own scripts run: with the page's document, unseen by its scripts and not bound by its policy.
const world = "testlab"

// evaluate runs an expression there. A promise is waited for. The result is stored in out, unless that is nil. If the page changes under its hands, it
// is run in the next.
func (p *Page) evaluate(expression string, out any) error {
	for deadline := time.Now().Add(pagePatience); ; time.Sleep(10 * time.Millisecond) {
		err := p.evaluateOnce(expression, out)
		if err == nil || !betweenPages(err) || time.Now().After(deadline) {
			return err
		}
	}
}

// betweenPages tells the errors of commands to a page that has just gone.
func betweenPages(err error) bool {
	return slices.ContainsFunc([]string{"Cannot find context", "context was destroyed", "navigated or closed", "No frame for given id", "Could not create isolated world"},
		func(text string) bool { return strings.Contains(err.Error(), text) })
}

func (p *Page) evaluateOnce(expression string, out any) error {
	w, err := try(p, page.CreateIsolatedWorld, page.CreateIsolatedWorldParams{FrameID: cdp.FrameID(p.target.TargetID), WorldName: world})
	if err != nil {
		return err
	}
	r, err := try(p, runtime.Evaluate, runtime.EvaluateParams{Expression: expression, ContextID: w.ExecutionContextID, ReturnByValue: on(true), AwaitPromise: on(true), UserGesture: on(true)})
	if err != nil {
		return err
	}
	if r.ExceptionDetails != nil {
		return errors.New(exception(r.ExceptionDetails))
	}
	if out == nil || len(r.Result.Value) == 0 {
		return nil
	}
	return json.Unmarshal(r.Result.Value, out)
}

// Eval runs an expression with the page's document, but out of sight of its scripts, waits if it is a promise, and stores the result in out, unless that
// is nil.
func (p *Page) Eval(expression string, out any) {
	p.t.Helper()
	if err := p.evaluate(expression, out); err != nil {
		p.fatal("%s: %v", expression, err)
	}
}

const pageText = `document.body ? document.body.innerText : ""`

// Text is what stands on the page, as one line for each line that is seen.
func (p *Page) Text() string {
	p.t.Helper()
	var text string
	p.Eval(pageText, &text)
	return strings.ReplaceAll(text, "\u00a0", " ")
}

// Title is the page's name in the browser's tab.
func (p *Page) Title() string { return p.ask("document.title") }

// Path is the address without the host.
func (p *Page) Path() string { return p.ask("location.pathname + location.search") }

// Focused is the name of what the keyboard is on, by its text or its field's label.
func (p *Page) Focused() string {
	return p.ask(`(e => (e.labels && e.labels[0] || e).innerText || e.getAttribute("aria-label") || e.tagName)(document.activeElement)`)
}

func (p *Page) ask(expression string) string {
	p.t.Helper()
	var answer string
	p.Eval(expression, &answer)
	return answer
}

// Status is the HTTP status of the page.
func (p *Page) Status() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

// Header is what came with the page.
func (p *Page) Header() http.Header {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.header.Clone()
}

// HasText waits until all of this stands on the page.
func (p *Page) HasText(texts ...string) *Page {
	p.t.Helper()
	for _, text := range texts {
		p.wait(fmt.Sprintf("no text %q", text), func() bool { return strings.Contains(p.Text(), text) })
	}
	return p
}

// HasNoText ends the test if any of this stands on the page.
func (p *Page) HasNoText(texts ...string) *Page {
	p.t.Helper()
	shown := p.Text()
	for _, text := range texts {
		if strings.Contains(shown, text) {
			p.fatal("the page has the text %q", text)
		}
	}
	return p
}

// At waits until the page's address begins with this path.
func (p *Page) At(path string) *Page {
	p.t.Helper()
	p.wait("not at "+path, func() bool { return strings.HasPrefix(p.Path(), path) })
	return p.settle()
}

func (p *Page) wait(otherwise string, ok func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(pagePatience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.fatal("%s", otherwise)
		}
	}
}

// Press presses a key in what has the focus: Enter, Tab, Shift+Tab, Escape, Space or an arrow, by its name in KeyboardEvent.key.
func (p *Page) Press(key string) *Page {
	p.t.Helper()
	k := input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeKeyDown}
	if rest, shift := strings.CutPrefix(key, "Shift+"); shift {
		key, k.Modifiers = rest, 8
	}
	known, ok := keys[key]
	if !ok {
		p.t.Fatalf("the lab has no key %q", key)
	}
	k.Key, k.Code, k.WindowsVirtualKeyCode, k.Text = known.key, key, known.code, known.text
	do(p, input.DispatchKeyEvent, k)
	k.Type, k.Text = input.DispatchKeyEventTypeKeyUp, ""
	do(p, input.DispatchKeyEvent, k)
	return p.settle()
}

var keys = map[string]struct {
	key, text string
	code      int64
}{
	"Enter": {"Enter", "\r", 13}, "Tab": {"Tab", "", 9}, "Escape": {"Escape", "", 27}, "Space": {" ", " ", 32},
	"ArrowUp": {"ArrowUp", "", 38}, "ArrowDown": {"ArrowDown", "", 40},
}

// Download does what starts a download, and returns the file's name and content.
func (p *Page) Download(start func()) (name string, content []byte) {
	p.t.Helper()
	known := p.files()
	start()
	p.wait("nothing was downloaded", func() bool {
		for _, number := range p.files() {
			if slices.Contains(known, number) {
				continue
			}
			if name = p.browser.downloaded(number); name != "" {
				content, _ = os.ReadFile(filepath.Join(p.downloads, number))
				return true
			}
		}
		return false
	})
	return name, content
}

// files are named by the numbers of their downloads.
func (p *Page) files() []string {
	p.t.Helper()
	entries, err := os.ReadDir(p.downloads)
	if err != nil {
		p.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// AllowClipboard lets pages write to the clipboard, as a browser does after a click, and Clipboard read it.
func (p *Page) AllowClipboard() *Page {
	p.t.Helper()
	for _, name := range []string{"clipboard-read", "clipboard-write"} {
		inBrowser(p, browser.SetPermission, browser.SetPermissionParams{Permission: &browser.PermissionDescriptor{Name: name}, Setting: browser.PermissionSettingGranted, BrowserContextID: p.context})
	}
	return p
}

// Clipboard is what was copied last, by anybody in this browser.
func (p *Page) Clipboard() string { return p.ask("navigator.clipboard.readText()") }

// Cookies are all that the person has.
func (p *Page) Cookies() []*network.Cookie {
	p.t.Helper()
	return inBrowser(p, storage.GetCookies, storage.GetCookiesParams{BrowserContextID: p.context}).Cookies
}

// SetCookie gives the person a cookie for the site of an address.
func (p *Page) SetCookie(address, name, value string) {
	p.t.Helper()
	inBrowser(p, storage.SetCookies, storage.SetCookiesParams{BrowserContextID: p.context, Cookies: []*network.CookieParam{{
		Name: name, Value: value, URL: address, Path: "/", Secure: true, HTTPOnly: true, SameSite: network.CookieSameSiteLax}}})
}

// Client is an HTTP client with the person's cookies of now, to send what no page would. It follows no redirect.
func (p *Page) Client(ca *CA) *http.Client {
	p.t.Helper()
	jar, _ := cookiejar.New(nil)
	for _, c := range p.Cookies() {
		site := &url.URL{Scheme: "https", Host: strings.TrimPrefix(c.Domain, "."), Path: "/"}
		jar.SetCookies(site, []*http.Cookie{{Name: c.Name, Value: c.Value, Path: c.Path, Secure: c.Secure}})
	}
	return &http.Client{Timeout: patience, Jar: jar, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// FitsWidth fails the test if the page has to be scrolled sideways.
func (p *Page) FitsWidth() *Page {
	p.t.Helper()
	var wide string
	p.Eval(`(root => root.scrollWidth <= root.clientWidth ? "" :
		root.scrollWidth + " of " + root.clientWidth + " pixels: " + [...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > root.clientWidth + 1).
			slice(-3).map(e => e.outerHTML.slice(0, 200)).join("\n"))(document.documentElement)`, &wide)
	if wide != "" {
		p.t.Errorf("page %s is wider than the window: %s", p.Path(), wide)
	}
	return p
}

// Screenshot writes a picture of the whole page, name.png, to the folder that POSTERN_SCREENSHOTS names, if it does.
func (p *Page) Screenshot(name string) *Page {
	p.t.Helper()
	dir := os.Getenv("POSTERN_SCREENSHOTS")
	if dir == "" {
		return p
	}
	png, err := p.capture()
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, fileName(name)+".png"), png, 0o644)
	}
	if err != nil {
		p.t.Error(err)
	}
	return p
}

func (p *Page) capture() ([]byte, error) {
	r, err := try(p, page.CaptureScreenshot, page.CaptureScreenshotParams{CaptureBeyondViewport: on(true)})
	return r.Data, err
}
