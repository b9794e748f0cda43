package testlab

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/dom"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
)

// What a page consists of, by the roles that a screen reader tells.
var (
	fieldRoles = []string{"textbox", "searchbox", "spinbutton", "Date", "DateTime", "InputTime"}
	listRoles  = []string{"combobox", "listbox", "MenuListPopup"}
	tickRoles  = []string{"checkbox", "radio", "switch"}
	clickRoles = []string{"button", "link", "menuitem", "tab", "DisclosureTriangle", "summary", "checkbox", "radio", "switch"}
)

// element is a thing on the page that one can see or use.
type element struct {
	role, name string
	disabled   bool
	node       cdp.BackendNodeID
	above      []accessibility.NodeID // what it lies in, the nearest first
}

// elements lists what has one of the roles, and what stands in each part of the page.
func (p *Page) elements(roles []string) (list []element, within map[accessibility.NodeID]string) {
	r, err := try(p, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	if err != nil {
		return nil, nil // between two pages
	}
	parent := make(map[accessibility.NodeID]accessibility.NodeID)
	for _, n := range r.Nodes {
		parent[n.NodeID] = n.ParentID
	}
	above := func(id accessibility.NodeID) (ids []accessibility.NodeID) {
		for id = parent[id]; id != ""; id = parent[id] {
			ids = append(ids, id)
		}
		return ids
	}
	within = make(map[accessibility.NodeID]string)
	for _, n := range r.Nodes {
		role := axText(n.Role)
		if role == "StaticText" {
			for _, id := range above(n.NodeID) {
				within[id] += " " + axText(n.Name)
			}
		}
		if n.Ignored || !slices.Contains(roles, role) {
			continue
		}
		e := element{role: role, name: axText(n.Name), node: n.BackendDOMNodeID, above: above(n.NodeID)}
		for _, property := range n.Properties {
			e.disabled = e.disabled || property.Name == accessibility.PropertyNameDisabled && axText(property.Value) == "true"
		}
		list = append(list, e)
	}
	return list, within
}

func axText(v *accessibility.Value) string {
	if v == nil {
		return ""
	}
	var s any
	json.Unmarshal(v.Value, &s)
	return oneLine(fmt.Sprint(s))
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// find waits for the one thing of that name; if there are several, it is the one nearest to the text of In.
func (p *Page) find(roles []string, name, near string) element {
	p.t.Helper()
	deadline := time.Now().Add(pagePatience)
	for {
		list, within := p.elements(roles)
		found := named(list, name)
		if near != "" {
			found = nearest(found, within, near)
		}
		if len(found) == 1 && !found[0].disabled {
			return found[0]
		}
		if time.Now().After(deadline) || len(found) > 1 && !p.busy() {
			var names []string
			for _, e := range list {
				names = append(names, fmt.Sprintf("%s %q", e.role, e.name))
			}
			if near != "" {
				name += " in " + near
			}
			p.fatal("%d things (%s) of the name %q; there are: %s", len(found), strings.Join(roles, ", "), name, strings.Join(names, ", "))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (p *Page) busy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.loading
}

// named are those whose name is this, or, if there are none, whose name begins with it: a hint may follow.
func named(list []element, name string) []element {
	name = oneLine(name)
	only := func(ok func(element) bool) []element {
		return slices.DeleteFunc(slices.Clone(list), func(e element) bool { return !ok(e) })
	}
	if exact := only(func(e element) bool { return e.name == name }); len(exact) > 0 {
		return exact
	}
	return only(func(e element) bool { return strings.HasPrefix(e.name, name) })
}

// nearest are those with the shortest way up to a part of the page in which the text stands.
func nearest(list []element, within map[accessibility.NodeID]string, text string) (best []element) {
	least := -1
	for _, e := range list {
		way := slices.IndexFunc(e.above, func(id accessibility.NodeID) bool { return strings.Contains(oneLine(within[id]), text) })
		switch {
		case way < 0 || least >= 0 && way > least:
		case way == least:
			best = append(best, e)
		default:
			best, least = []element{e}, way
		}
	}
	return best
}

// Part is the part of a page in which a text stands, such as a row of a table.
type Part struct {
	page *Page
	near string
}

// In looks for things near a text: of several with the same name, those in the smallest part of the page that holds the text too.
func (p *Page) In(text string) Part { return Part{p, text} }

// Click clicks a button or a link; see Page.Click.
func (a Part) Click(name string) *Page {
	a.page.t.Helper()
	return a.page.click(clickRoles, name, a.near)
}

// Click clicks a button, a link, or whatever opens, by its text, with the mouse: it must not be covered.
func (p *Page) Click(name string) *Page {
	p.t.Helper()
	return p.click(clickRoles, name, "")
}

func (p *Page) click(roles []string, name, near string) *Page {
	p.t.Helper()
	p.mouse(p.find(roles, name, near), 1)
	return p.settle()
}

// DoubleClick clicks twice, as impatient people do with a button that has sent a form already.
func (p *Page) DoubleClick(name string) *Page {
	p.t.Helper()
	p.mouse(p.find(clickRoles, name, ""), 2)
	return p.settle()
}

func (p *Page) mouse(e element, clicks int64) {
	p.t.Helper()
	do(p, dom.ScrollIntoViewIfNeeded, dom.ScrollIntoViewIfNeededParams{BackendNodeID: e.node})
	quads := do(p, dom.GetContentQuads, dom.GetContentQuadsParams{BackendNodeID: e.node}).Quads
	if len(quads) == 0 {
		p.fatal("%s %q can't be seen", e.role, e.name)
	}
	q := quads[0]
	x, y := (q[0]+q[2]+q[4]+q[6])/4, (q[1]+q[3]+q[5]+q[7])/4
	var covered string
	p.call(e, fmt.Sprintf(`function() {
		const top = document.elementFromPoint(%f, %f)
		const label = top && top.closest("label")
		return this.contains(top) || top && top.contains(this) || label && label.control === this ? "" : top ? top.outerHTML.slice(0, 200) : "nothing"
	}`, x, y), &covered)
	if covered != "" {
		p.fatal("%s %q is covered by %s", e.role, e.name, covered)
	}
	m := input.DispatchMouseEventParams{Type: input.DispatchMouseEventTypeMouseMoved, X: x, Y: y}
	do(p, input.DispatchMouseEvent, m)
	for n := range clicks {
		m.Button, m.ClickCount = input.MouseButtonLeft, n+1
		m.Type, m.Buttons = input.DispatchMouseEventTypeMousePressed, 1
		do(p, input.DispatchMouseEvent, m)
		m.Type, m.Buttons = input.DispatchMouseEventTypeMouseReleased, 0
		do(p, input.DispatchMouseEvent, m)
	}
}

// call runs a function with the element as this.
func (p *Page) call(e element, function string, out any) {
	p.t.Helper()
	w := do(p, page.CreateIsolatedWorld, page.CreateIsolatedWorldParams{FrameID: cdp.FrameID(p.target.TargetID), WorldName: world})
	object := do(p, dom.ResolveNode, dom.ResolveNodeParams{BackendNodeID: e.node, ExecutionContextID: w.ExecutionContextID}).Object
	r := do(p, runtime.CallFunctionOn, runtime.CallFunctionOnParams{FunctionDeclaration: function, ObjectID: object.ObjectID, ReturnByValue: on(true)})
	if r.ExceptionDetails != nil {
		p.fatal("%s: %s", function, exception(r.ExceptionDetails))
	}
	if out != nil && len(r.Result.Value) > 0 {
		if err := json.Unmarshal(r.Result.Value, out); err != nil {
			p.t.Fatal(err)
		}
	}
}

// Fill types into the field with that label, in place of what stood there. A date is given as 2026-12-31.
func (p *Page) Fill(label, text string) *Page {
	p.t.Helper()
	e := p.find(append(slices.Clone(fieldRoles), "combobox"), label, "")
	do(p, dom.Focus, dom.FocusParams{BackendNodeID: e.node})
	value := `function() { return this.value }`
	if strings.HasPrefix(e.role, "Date") || e.role == "InputTime" {
		value = fmt.Sprintf(`function() { this.value = %q; this.dispatchEvent(new Event("input", {bubbles: true})); this.dispatchEvent(new Event("change", {bubbles: true})); return this.value }`, text)
	} else {
		p.call(e, `function() { this.select() }`, nil)
		if text == "" {
			do(p, input.DispatchKeyEvent, input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeKeyDown, Key: "Delete", Code: "Delete", WindowsVirtualKeyCode: 46})
			do(p, input.DispatchKeyEvent, input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeKeyUp, Key: "Delete", Code: "Delete", WindowsVirtualKeyCode: 46})
		} else {
			do(p, input.InsertText, input.InsertTextParams{Text: text})
		}
	}
	var got string
	p.call(e, value, &got)
	if got != text {
		p.fatal("%q typed into %q became %q", text, label, got)
	}
	return p
}

// Value is what stands in the field with that label.
func (p *Page) Value(label string) string {
	p.t.Helper()
	var value string
	p.call(p.find(slices.Concat(fieldRoles, listRoles), label, ""), `function() { return this.value }`, &value)
	return value
}

// Choose takes an option of a list, by its text.
func (p *Page) Choose(label, option string) *Page {
	p.t.Helper()
	var there string
	p.call(p.find(listRoles, label, ""), fmt.Sprintf(`function() {
		const o = [...this.options].find(o => o.text.trim() === %q)
		if (!o) return [...this.options].map(o => o.text.trim()).join(", ")
		this.value = o.value
		this.dispatchEvent(new Event("input", {bubbles: true}))
		this.dispatchEvent(new Event("change", {bubbles: true}))
	}`, option), &there)
	if there != "" {
		p.fatal("no option %q in %q; there are: %s", option, label, there)
	}
	return p.settle()
}

// Tick ticks a box, or takes one of several choices.
func (p *Page) Tick(label string) *Page {
	p.t.Helper()
	e := p.find(tickRoles, label, "")
	ticked := func() (yes bool) {
		p.call(e, `function() { return this.checked }`, &yes)
		return yes
	}
	if ticked() {
		return p
	}
	p.mouse(e, 1)
	if !ticked() {
		p.fatal("a click on %s %q changes nothing", e.role, e.name)
	}
	return p
}

// Has reports whether there is a button or a link of that name now.
func (p *Page) Has(name string) bool {
	p.t.Helper()
	list, _ := p.elements(clickRoles)
	return len(named(list, name)) > 0
}

// Names lists the buttons and links of the page.
func (p *Page) Names() (names []string) {
	p.t.Helper()
	list, _ := p.elements(clickRoles)
	for _, e := range list {
		names = append(names, e.name)
	}
	return names
}
