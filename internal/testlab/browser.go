package testlab

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"os"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// Chromium is a running browser without a window. Each page that it opens is another person's, with cookies and settings of their own.
type Chromium struct {
	*Process
	t   testing.TB
	ctx context.Context // of chromedp
	dir string

	mu    sync.Mutex        // guards what follows
	names map[string]string // of downloads, by the number that the browser gives each
	whole map[string]bool   // those that are complete
}

// Browser starts a Chromium that takes what the CA has issued and will issue for any name, so that https://localhost:port is a secure context with
// passkeys and all. Names below .test are this machine's too, and no other host is found.
func Browser(t testing.TB, ca *CA) *Chromium {
	t.Helper()
	Need(t, "chromium")
	dir := Dir(t)
	fromBrowser, browserOut := pipe(t)
	browserIn, toBrowser := pipe(t)
	argv := append([]string{find("chromium"), "--user-data-dir=" + dir + "/profile", "--ignore-certificate-errors-spki-list=" + ca.pin()}, chromiumFlags...)
	b := &Chromium{t: t, dir: dir, names: make(map[string]string), whole: make(map[string]bool), Process: run(t, []string{"HOME=" + dir}, argv, browserIn, browserOut)}
	browserIn.Close()
	browserOut.Close()
	ctx, cancel := chromedp.NewAllocatorContext(context.Background(), &pipeEnds{chromedp.NewPipeConn(fromBrowser, toBrowser)})
	t.Cleanup(cancel)
	quiet := func(string, ...any) {} // it reports what a newer Chromium says and the library does not know
	b.ctx, _ = chromedp.NewContext(ctx, chromedp.WithBrowserOption(chromedp.WithBrowserLogf(quiet), chromedp.WithBrowserErrorf(quiet)))
	if err := chromedp.ListenBrowser(b.ctx, b.note); err != nil { // connects
		t.Fatalf("connect to chromium: %v", err)
	}
	return b
}

// note hears of downloads. It must not call the browser.
func (b *Chromium) note(ev any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch ev := ev.(type) {
	case *browser.EventDownloadWillBegin:
		b.names[ev.GUID] = ev.SuggestedFilename
	case *browser.EventDownloadProgress:
		b.whole[ev.GUID] = ev.State == browser.DownloadProgressStateCompleted
	}
}

// downloaded is the name of a complete download; empty: it is none.
func (b *Chromium) downloaded(number string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.whole[number] {
		return ""
	}
	return b.names[number]
}

var chromiumFlags = []string{
	"--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
	"--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
	"--disable-breakpad", "--disable-dev-shm-usage", "--disable-search-engine-choice-screen", "--disable-prompt-on-repost", "--password-store=basic", "--mute-audio",
	"--log-level=3", // fatal; it misses the desktop's message bus, over and over
	"--host-resolver-rules=MAP *.test 127.0.0.1, EXCLUDE localhost, EXCLUDE 127.0.0.1, MAP * ~NOTFOUND",
	"--disable-features=Translate,OptimizationHints,MediaRouter,AutofillServerCommunication",
	"about:blank",
}

// pin is what Chromium calls the key of all that the CA issues.
func (ca *CA) pin() string {
	ca.t.Helper()
	der, err := x509.MarshalPKIXPublicKey(ca.leaf.Public())
	if err != nil {
		ca.t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	return base64.StdEncoding.EncodeToString(sum[:])
}

func pipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// pipeEnds gives chromedp the browser that runs already. The lab ends it, not chromedp.
type pipeEnds struct{ conn chromedp.Transport }

func (p *pipeEnds) Allocate(ctx context.Context, o ...chromedp.BrowserOption) (*chromedp.Browser, error) {
	return chromedp.NewBrowserTransport(ctx, p.conn, o...)
}

func (p *pipeEnds) Wait() {}

func (p *pipeEnds) Attaches() bool { return true }

// Page opens an empty page for a person at a desk, in English, in UTC. It ends with the test t, which may be a subtest of the browser's. What a page
// should never do fails t: errors and uncaught exceptions of scripts, violations of its content security policy, things that are not found, dialogues.
func (b *Chromium) Page(t testing.TB) *Page {
	t.Helper()
	return b.open(t, chromedp.WithNewBrowserContext())
}

func (b *Chromium) open(t testing.TB, o chromedp.ContextOption) *Page {
	t.Helper()
	p := &Page{t: t, browser: b, asked: make(map[network.RequestID]string)}
	ctx, cancel := chromedp.NewContext(b.ctx, o, chromedp.WithListener(p.note))
	p.ctx = ctx
	t.Cleanup(func() {
		p.judge()
		cancel()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("open a page: %v", err)
	}
	p.mu.Lock() // events come already
	p.target = chromedp.FromContext(ctx).Target
	p.mu.Unlock()
	p.context = chromedp.FromContext(ctx).BrowserContextID
	p.setUp()
	return p
}
