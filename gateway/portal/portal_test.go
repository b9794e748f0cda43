package portal

import (
	"html/template"
	"regexp"
	"strings"
	"testing"
	"text/template/parse"

	"postern/gateway/texts"
)

// Every text that a page asks for is in the catalogue.
func TestPagesSayWhatIsInTheCatalogue(t *testing.T) {
	all, err := parsePages()
	if err != nil {
		t.Fatal(err)
	}
	p := texts.In("en")
	key := regexp.MustCompile(`\.T "([^"]+)"`)
	for name, page := range all {
		for _, part := range page.Templates() {
			for _, m := range key.FindAllStringSubmatch(nodes(part), -1) {
				if !p.Has(m[1]) {
					t.Errorf("%s: %s asks for %q, which en.toml lacks", name, part.Name(), m[1])
				}
			}
		}
	}
}

func nodes(t *template.Template) string {
	if t.Tree == nil {
		return ""
	}
	var b strings.Builder
	for _, n := range (*parse.Tree)(t.Tree).Root.Nodes {
		b.WriteString(n.String())
	}
	return b.String()
}
