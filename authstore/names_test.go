package authstore

import (
	"strings"
	"testing"
)

func TestCanonical(t *testing.T) {
	plain := Names{}
	bare := Names{DefaultDomain: "example.test"}
	plus := Names{DefaultDomain: "example.test", PlusAddresses: true}
	for name, tt := range map[string]struct {
		names Names
		typed string
		want  string // empty: nobody's name
	}{
		"as it is":              {plain, "alice@example.test", "alice@example.test"},
		"signs":                 {plain, "a.b-c_d+e@sub.example.test", "a.b-c_d+e@sub.example.test"},
		"capitals":              {plain, "Alice.B@Example.TEST", "alice.b@example.test"},
		"dotted capital i":      {plain, "AL\u0130CE@example.test", "ali\u0307ce@example.test"},
		"bare":                  {bare, "Alice", "alice@example.test"},
		"bare, no default":      {plain, "alice", ""},
		"plus":                  {plus, "alice+phone@example.test", "alice@example.test"},
		"bare with plus":        {plus, "alice+phone", "alice@example.test"},
		"plus stays":            {bare, "alice+phone@example.test", "alice+phone@example.test"},
		"begins with plus":      {plus, "+x@example.test", "+x@example.test"},
		"dot before plus":       {plus, "alice.+x@example.test", ""},
		"decomposed":            {plain, "u\u0308ber@example.test", "über@example.test"},
		"full width":            {plain, "\uff41lice@example.test", "alice@example.test"},
		"capital sharp s":       {plain, "GRO\u1e9eE@example.test", "große@example.test"},
		"cyrillic":              {plain, "БОРИС@пример.рф", "борис@xn--e1afmkfd.xn--p1ai"},
		"domain in unicode":     {plain, "alice@Bücher.example", "alice@xn--bcher-kva.example"},
		"domain in punycode":    {plain, "alice@xn--bcher-kva.example", "alice@xn--bcher-kva.example"},
		"ideographic full stop": {plain, "alice@example\u3002test", "alice@example.test"},
		"apostrophe":            {plain, "o'brien@example.test", "o'brien@example.test"},
		"mixed scripts log in":  {plain, "p\u0430ul@example.test", "p\u0430ul@example.test"},
		"right to left":         {plain, "\u05d3\u05d5\u05d3@example.test", "\u05d3\u05d5\u05d3@example.test"},
		"empty":                 {bare, "", ""},
		"empty local part":      {plain, "@example.test", ""},
		"empty domain":          {bare, "alice@", ""},
		"two at":                {plain, "alice@b@example.test", ""},
		"full width at":         {bare, "alice\uff20example.test", ""},
		"NUL":                   {plain, "alice\x00@example.test", ""},
		"line end":              {plain, "alice\r\n@example.test", ""},
		"tab in the domain":     {plain, "alice@exam\tple.test", ""},
		"blank":                 {plain, "al ice@example.test", ""},
		"no-break space":        {plain, "al\u00a0ice@example.test", ""},
		"zero width space":      {plain, "al\u200bice@example.test", ""},
		"right-to-left mark":    {plain, "alice\u200f@example.test", ""},
		"two directions":        {plain, "\u05d3abc@example.test", ""},
		"slash":                 {plain, "a/../b@example.test", ""},
		"full width slash":      {plain, "a\uff0fb@example.test", ""},
		"percent":               {plain, "a%2fb@example.test", ""},
		"star":                  {plain, "a*b@example.test", ""},
		"quotes":                {plain, `"alice"@example.test`, ""},
		"braces":                {plain, "{local}@example.test", ""},
		"dots":                  {plain, "..@example.test", ""},
		"dot at the end":        {plain, "alice.@example.test", ""},
		"address literal":       {plain, "alice@[192.0.2.1]", ""},
		"underscore in domain":  {plain, "alice@ex_ample.test", ""},
		"dash at an edge":       {plain, "alice@x-.test", ""},
		"empty label":           {plain, "alice@a..test", ""},
		"final dot":             {plain, "alice@example.test.", ""},
		"bad punycode":          {plain, "alice@xn--a.test", ""},
		"not UTF-8":             {plain, "al\xffice@example.test", ""},
		"half of a surrogate":   {plain, "\xed\xa0\x80@example.test", ""},
		"too long":              {plain, strings.Repeat("a", 250) + "@example.test", ""},
		"too long a label":      {plain, "a@" + strings.Repeat("a", 64) + ".test", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := tt.names.Canonical(tt.typed)
			if got != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("Canonical(%q) = %q, %v; want %q", tt.typed, got, err, tt.want)
			}
		})
	}
}

func TestForCreation(t *testing.T) {
	for name, tt := range map[string]struct {
		typed string
		err   string // part of the error; empty: taken
	}{
		"plain":                  {"alice@example.test", ""},
		"umlauts":                {"größe@bücher.test", ""},
		"cyrillic":               {"борис@example.test", ""},
		"han":                    {"李小龍@example.test", ""},
		"kana and han":           {"山田たろう@example.test", ""},
		"digits":                 {"123@example.test", ""},
		"cyrillic in latin":      {"p\u0430ul@example.test", "mixes Latin and Cyrillic"},
		"greek in latin":         {"alic\u03b5@example.test", "mixes Latin and Greek"},
		"devanagari in latin":    {"al\u0907ce@example.test", "mixes Latin and Devanagari"},
		"latin in cyrillic":      {"асе@example.test", "looks Latin and is Cyrillic"},
		"in the domain":          {"alice@ex\u0430mple.test", "mixes Latin and Cyrillic"},
		"in the punycode domain": {"alice@xn--exmple-4nf.test", "mixes Latin and Cyrillic"},
		"nobody's":               {"alice@", "not an address such as alice@example.org: the domain is missing"},
		"no domain":              {"alice", "the domain is missing"},
		"no such domain":         {"alice@ex_ample.test", "its domain can't be one"},
		"a blank":                {"al ice@example.test", "a sign in it can't stand before the @"},
		"with plus":              {"alice+b@example.test", "lead to alice@example.test"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Names{PlusAddresses: true}.forCreation(tt.typed)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("forCreation(%q) = %q, %v; want an error with %q", tt.typed, got, err, tt.err)
			}
		})
	}
}

func TestCanonicalAllocatesNothingForACanonicalName(t *testing.T) {
	names := Names{DefaultDomain: "example.test", PlusAddresses: true}
	if n := testing.AllocsPerRun(100, func() { names.Canonical("alice.b@example.test") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// What is canonical stays so, and holds nothing that a header, a path or a line could be broken with.
func FuzzCanonical(f *testing.F) {
	for _, s := range []string{"alice@example.test", "Alice", "u\u0308@bücher.example", "a+b@c.d", "\uff21@x.y", "@", "\u05d0@x.y",
		"\u212a@k.test", "x@ß.test", "AL\u0130CE@EXAMPLE.test", "a@xn--bcher-kva.test"} {
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, typed string, plus bool) {
		names := Names{DefaultDomain: "example.test", PlusAddresses: plus}
		once, err := names.Canonical(typed)
		if err != nil {
			return
		}
		if twice, err := names.Canonical(once); err != nil || twice != once {
			t.Errorf("Canonical(%q) = %q, and of that %q, %v", typed, once, twice, err)
		}
		if len(once) > maxName || strings.Count(once, "@") != 1 || strings.ContainsAny(once, "\x00\r\n\t /\\%\"<>{}:;,()[]?#*") {
			t.Errorf("Canonical(%q) = %q", typed, once)
		}
		names.forCreation(typed)
	})
}
