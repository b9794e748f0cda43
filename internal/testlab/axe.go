package testlab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/chromedp/cdproto/emulation"
)

// axeFile is where test.sh puts axe-core; both name its version.
const axeFile = "postern-test/axe-core-4.14.1.min.js"

var axeSource = sync.OnceValues(func() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(filepath.Join(dir, axeFile))
	return string(text), err
})

// Axe fails the test for what keeps people from using the page, as axe-core finds it: violations that it calls serious or critical.
func (p *Page) Axe() *Page {
	p.t.Helper()
	source, err := axeSource()
	if err != nil {
		const text = "axe-core is missing; ./test.sh fetches it: %v"
		if full() {
			p.t.Fatalf(text, err)
		}
		p.t.Skipf(text, err)
	}
	if p.scriptless { // axe needs timers; the page's scripts did not run and do not run now
		do(p, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: false})
		defer p.WithoutScript()
	}
	var there bool
	if p.Eval(`typeof axe !== "undefined"`, &there); !there { // half a megabyte
		p.Eval(source+";0", nil)
	}
	var found []struct {
		ID, Impact, Help string
		Nodes            []struct {
			Target         []any
			HTML           string
			FailureSummary string
		}
	}
	p.Eval(`axe.run(document, {resultTypes: ["violations"]}).then(r => JSON.parse(JSON.stringify(r.violations)))`, &found)
	for _, v := range found {
		if v.Impact != "serious" && v.Impact != "critical" {
			continue
		}
		for _, n := range v.Nodes {
			p.t.Errorf("page %s: axe: %s (%s): %s\n  %s\n  %s\n  %s", p.Path(), v.ID, v.Impact, v.Help, fmt.Sprint(n.Target...), n.HTML, strings.ReplaceAll(n.FailureSummary, "\n", "\n  "))
		}
	}
	return p
}
