package davproxy

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"postern/internal/testlab"
)

// read tells a document's tokens in words, neighbouring texts as one.
func read(r io.Reader) ([]string, error) {
	tokens := newTokenizer(r)
	defer tokens.free()
	return tellAll(tokens)
}

func tellAll(tokens *tokenizer) ([]string, error) {
	var told []string
	var text []byte
	for {
		tok, err := tokens.next()
		if err == io.EOF {
			return told, nil
		}
		if err != nil {
			return nil, err
		}
		if tok.kind == textToken {
			text = tok.appendText(text)
			continue
		}
		told = tell(told, text, tok.kind == startToken, tok.name)
		text = text[:0]
	}
}

func tell(told []string, text []byte, start bool, n name) []string {
	if len(text) > 0 {
		told = append(told, fmt.Sprintf("%q", text))
	}
	return append(told, fmt.Sprintf("%t %q %q", start, n.space, n.local))
}

// readByXML is read by encoding/xml.
func readByXML(doc []byte) ([]string, error) {
	var told []string
	var text []byte
	depth := 0
	dec := xml.NewDecoder(bytes.NewReader(doc))
	dec.CharsetReader = func(_ string, r io.Reader) (io.Reader, error) { return r, nil }
	for {
		tok, err := dec.Token()
		if err == io.EOF {
			return told, nil
		}
		if err != nil {
			return nil, err
		}
		switch x := tok.(type) {
		case xml.StartElement:
			told, text, depth = tell(told, text, true, name{x.Name.Space, x.Name.Local}), text[:0], depth+1
		case xml.EndElement:
			told, text, depth = tell(told, text, false, name{x.Name.Space, x.Name.Local}), text[:0], depth-1
		case xml.CharData:
			if depth > 0 {
				text = append(text, x...)
			}
		}
	}
}

// verdicts of us and of libxml2.
type verdicts uint8

const (
	good   verdicts = iota // both take it
	bad                    // both refuse it
	strict                 // we alone refuse it
)

// documents are judged by us and by libxml2. The strict ones are XML, but parsers differ in what they make of them, or they cost more
// than an answer is worth.
var documents = []struct {
	name string
	want verdicts
	doc  string
}{
	{"empty", bad, ""},
	{"only white space", bad, " \n"},
	{"only a declaration", bad, `<?xml version="1.0"?>`},
	{"only a comment", bad, `<!-- x -->`},
	{"a root", good, `<a/>`},
	{"white space in tags", good, "<a\n b = 'c'\t></a \r\n>"},
	{"everything", good, `<?xml version="1.0" encoding="UTF-8" standalone="yes" ?><!--x--><?x y?>` + "\n<a xmlns='u' b='>'>x&lt;&#65;&#x42;<![CDATA[<&]]>]]<c/></a><!--y--> <?z?>"},

	{"two roots", bad, `<a/><b/>`},
	{"text before the root", bad, `x<a/>`},
	{"text behind the root", bad, `<a/>x`},
	{"a reference behind the root", bad, `<a/>&#32;`},
	{"CDATA behind the root", bad, `<a/><![CDATA[ ]]>`},
	{"CDATA before the root", bad, `<![CDATA[]]><a/>`},
	{"end behind the root", bad, `<a/></a>`},
	{"end before the root", bad, `</a><a/>`},
	{"NUL behind the root", strict, "<a/>\x00"}, // for libxml2 the end
	{"ends crossed", bad, `<a><b></a></b>`},
	{"end of another case", bad, `<a></A>`},
	{"end of a longer name", bad, `<a></ab>`},
	{"end of a shorter name", bad, `<ab></a>`},
	{"end of the same name by another prefix", bad, `<x:a xmlns:x="u" xmlns:y="u"></y:a>`},
	{"end with an attribute", bad, `<a></a b="c">`},
	{"end with a slash", bad, `<a></a/>`},
	{"end with space before its name", bad, `<a></ a>`},
	{"start with space before its name", bad, `< a/>`},
	{"slash apart", bad, `<a/ >`},
	{"no name", bad, `<>`},
	{"only a slash", bad, `</>`},

	{"BOM", good, "\xef\xbb\xbf<a/>"},
	{"BOM and declaration", good, "\xef\xbb\xbf<?xml version='1.0' encoding='utf-8'?><a/>"},
	{"two BOMs", bad, "\xef\xbb\xbf\xef\xbb\xbf<a/>"},
	{"BOM inside", good, "<a>\xef\xbb\xbf</a>"},
	{"BOM behind", bad, "<a/>\xef\xbb\xbf"},
	{"UTF-16", strict, "\xff\xfe<\x00a\x00/\x00>\x00"},
	{"UTF-16, big end first", strict, "\xfe\xff\x00<\x00a\x00/\x00>"},
	{"UTF-16 without BOM", bad, "<\x00a\x00/\x00>\x00"},
	{"UTF-32", bad, "\x00\x00\xfe\xff\x00\x00\x00<\x00\x00\x00a\x00\x00\x00/\x00\x00\x00>"},

	{"XML 1.1", bad, `<?xml version="1.1"?><a/>`}, // libxml2 warns, and goes on
	{"XML 2.0", bad, `<?xml version="2.0"?><a/>`},
	{"no version", bad, `<?xml encoding="utf-8"?><a/>`},
	{"encoding first", bad, `<?xml encoding="utf-8" version="1.0"?><a/>`},
	{"standalone before encoding", bad, `<?xml version="1.0" standalone="yes" encoding="utf-8"?><a/>`},
	{"standalone maybe", bad, `<?xml version="1.0" standalone="maybe"?><a/>`},
	{"encoding twice", bad, `<?xml version="1.0" encoding="utf-8" encoding="utf-8"?><a/>`},
	{"declaration without space", bad, `<?xml version="1.0"encoding="utf-8"?><a/>`},
	{"declaration with something else", bad, `<?xml version="1.0" x="y"?><a/>`},
	{"declaration without quotes", bad, `<?xml version=1.0?><a/>`},
	{"declaration behind space", bad, ` <?xml version="1.0"?><a/>`},
	{"declaration behind a comment", bad, `<!----><?xml version="1.0"?><a/>`},
	{"declaration inside", bad, `<a><?xml version="1.0"?></a>`},
	{"declaration behind", bad, `<a/><?xml version="1.0"?>`},
	{"declaration twice", bad, `<?xml version="1.0"?><?xml version="1.0"?><a/>`},
	{"declaration in capitals", bad, `<?XML version="1.0"?><a/>`},
	{"declaration ends early", bad, `<?xml version="1.0"><a/>`},
	{"Latin-1", strict, `<?xml version="1.0" encoding="ISO-8859-1"?><a/>`},
	{"UTF-16 declared", bad, `<?xml version="1.0" encoding="UTF-16"?><a/>`},
	{"UTF-7", bad, `<?xml version="1.0" encoding="UTF-7"?><a>+ADw-</a>`},
	{"unknown encoding", bad, `<?xml version="1.0" encoding="x-none"?><a/>`},
	{"empty encoding", bad, `<?xml version="1.0" encoding=""?><a/>`},
	{"ASCII", good, `<?xml version="1.0" encoding="us-ascii"?><a>&#228;</a>`},
	{"ASCII that is not", bad, `<?xml version="1.0" encoding="us-ascii"?><a>ä</a>`},
	{"ASCII that is not, in a name", bad, `<?xml version="1.0" encoding="us-ascii"?><ä/>`},
	{"ASCII that is not, in a value", bad, `<?xml version="1.0" encoding="us-ascii"?><a b="ä"/>`},

	{"DOCTYPE", strict, `<!DOCTYPE a><a/>`},
	{"DOCTYPE with an entity", strict, `<!DOCTYPE a [<!ENTITY e "x">]><a>&e;</a>`},
	{"DOCTYPE with a file", strict, `<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/hostname">]><a/>`},
	{"DOCTYPE inside", bad, `<a><!DOCTYPE a></a>`},
	{"doctype in small letters", bad, `<!doctype a><a/>`},
	{"an undeclared entity", bad, `<a>&e;</a>`},
	{"an HTML entity", bad, `<a>&nbsp;</a>`},
	{"an undeclared entity in a value", bad, `<a b="&e;"/>`},
	{"the five entities", good, `<a b="&amp;&lt;&gt;&quot;&apos;">&amp;&lt;&gt;&quot;&apos;</a>`},
	{"an entity in capitals", bad, `<a>&AMP;</a>`},
	{"a lone ampersand", bad, `<a>a & b</a>`},
	{"a lone ampersand in a value", bad, `<a b="c&d"/>`},
	{"an ampersand before a tag", bad, `<a>&</a>;`},
	{"a reference without its end", bad, `<a>&amp</a>`},
	{"an empty reference", bad, `<a>&;</a>`},
	{"a reference to no number", bad, `<a>&#;</a>`},
	{"a reference to no hex number", bad, `<a>&#x;</a>`},
	{"a reference to letters", bad, `<a>&#a;</a>`},
	{"a reference with a capital X", bad, `<a>&#X41;</a>`},
	{"a reference with a sign", bad, `<a>&#+65;</a>`},
	{"a reference with space", bad, `<a>&# 65;</a>`},
	{"a reference with a line below", bad, `<a>&#6_5;</a>`},
	{"reference to NUL", bad, `<a>&#0;</a>`},
	{"reference to a control character", bad, `<a>&#x1b;</a>`},
	{"reference to a surrogate", bad, `<a>&#xd800;</a>`},
	{"reference to a pair of surrogates", bad, `<a>&#xd83d;&#xde00;</a>`},
	{"reference to FFFE", bad, `<a>&#xfffe;</a>`},
	{"reference beyond Unicode", bad, `<a>&#x110000;</a>`},
	{"reference beyond 32 bits", bad, `<a>&#4294967361;</a>`},
	{"reference beyond 64 bits", bad, `<a>&#x10000000000000041;</a>`},
	{"reference to the last character", good, `<a>&#x10FFFF;&#xfffd;&#xe000;&#xd7ff;</a>`},
	{"reference to DEL", good, `<a>&#127;&#x85;</a>`},
	{"reference in a value", good, `<a b="&#9;&#10;"/>`},
	{"reference to NUL in a value", bad, `<a b="&#0;"/>`},
	{"many zeros", strict, `<a>&#x00000000000000000041;</a>`},

	{"NUL", bad, "<a>\x00</a>"},
	{"NUL in a tag", bad, "<a\x00/>"},
	{"NUL in a value", bad, "<a b='\x00'/>"},
	{"NUL in a comment", bad, "<a><!--\x00--></a>"},
	{"NUL in CDATA", bad, "<a><![CDATA[\x00]]></a>"},
	{"NUL in an instruction", bad, "<a><?x \x00?></a>"},
	{"escape", bad, "<a>\x1b</a>"},
	{"form feed", bad, "<a>\f</a>"},
	{"form feed in a tag", bad, "<a\f/>"},
	{"DEL", good, "<a>\x7f</a>"},
	{"FFFE", bad, "<a>\uFFFE</a>"},
	{"FFFF in a value", bad, "<a b='\uFFFF'/>"},
	{"FFFF in CDATA", bad, "<a><![CDATA[\uFFFF]]></a>"},
	{"beyond the first plane", good, "<a>\U0001F600</a>"},
	{"a byte that is no UTF-8", bad, "<a>\xff</a>"},
	{"a lone continuation", bad, "<a>\x80</a>"},
	{"overlong slash", bad, "<a>\xc0\xaf</a>"},
	{"overlong less-than", bad, "<a>\xc0\xbca/></a>"},
	{"overlong in three bytes", bad, "<a>\xe0\x80\xbc</a>"},
	{"overlong NUL", bad, "<a>\xc0\x80</a>"},
	{"a surrogate", bad, "<a>\xed\xa0\x80</a>"},
	{"a pair of surrogates", bad, "<a>\xed\xa0\xbd\xed\xb8\x80</a>"},
	{"beyond Unicode", bad, "<a>\xf4\x90\x80\x80</a>"},
	{"five bytes", bad, "<a>\xf8\x88\x80\x80\x80</a>"},
	{"UTF-8 cut by a tag", bad, "<a>\xe2\x82</a>"},
	{"bad UTF-8 in a name", bad, "<a\xff/>"},
	{"bad UTF-8 in a value", bad, "<a b='\xff'/>"},
	{"bad UTF-8 in a comment", bad, "<a><!--\xff--></a>"},
	{"bad UTF-8 in CDATA", bad, "<a><![CDATA[\xff]]></a>"},
	{"bad UTF-8 in an instruction", bad, "<a><?x \xff?></a>"},

	{"]]> in text", bad, `<a>]]></a>`},
	{"]]]> in text", bad, `<a>]]]></a>`},
	{"]]> in a value", good, `<a b="]]>"/>`},
	{"]]&gt; in text", good, `<a>]]&gt;]]</a>`},
	{"CDATA in CDATA", bad, `<a><![CDATA[<![CDATA[]]>]]></a>`},
	{"brackets in CDATA", good, `<a><![CDATA[]]]]]></a>`},
	{"cdata in small letters", bad, `<a><![cdata[x]]></a>`},
	{"another section", bad, `<a><![INCLUDE[x]]></a>`},
	{"-- in a comment", bad, `<a><!-- a -- b --></a>`},
	{"comment ends with three", bad, `<a><!-- a ---></a>`},
	{"comment of three", bad, `<a><!---></a>`},
	{"comment of four", good, `<a><!----></a>`},
	{"markup in a comment", good, `<a><!-- <b> &e; ]]> --></a>`},
	{"comment in a tag", bad, `<a <!-- x --> />`},
	{"instruction without a name", bad, `<a><? x?></a>`},
	{"instruction without space", bad, `<a><?x+y?></a>`},
	{"instruction with a colon", bad, `<a><?x:y z?></a>`},
	{"instruction named Xml", bad, `<a><?Xml x?></a>`},
	{"instruction whose name goes on", good, `<?xml-stylesheet href="x"?><a/>`},
	{"instruction with no more", good, `<a><?x?></a>`},
	{"markup in an instruction", good, `<a><?x <b> & ? > ?></a>`},

	{"value without quotes", bad, `<a b=c/>`},
	{"no value", bad, `<a b/>`},
	{"empty value without quotes", bad, `<a b=/>`},
	{"quotes that differ", bad, `<a b="c'/>`},
	{"no name of an attribute", bad, `<a ="c"/>`},
	{"no space between attributes", bad, `<a b="c"d="e"/>`},
	{"no space before attributes", bad, `<a"b"/>`},
	{"< in a value", bad, `<a b="<"/>`},
	{"&lt; in a value", good, `<a b="&lt;"/>`},
	{"attribute twice", bad, `<a b="" b=""/>`},
	{"attribute twice, by two prefixes", bad, `<a xmlns:x="u" xmlns:y="u" x:b="" y:b=""/>`},
	{"attribute twice, the namespace written with a reference", bad, `<a xmlns:x="u" xmlns:y="&#117;" x:b="" y:b=""/>`},
	{"attribute in a namespace and in none", good, `<a xmlns="u" xmlns:x="u" b="" x:b=""/>`},
	{"declared behind its use", good, `<x:a x:b="" xmlns:x="u"/>`},
	{"an attribute with the prefix xml", good, `<a xml:lang="de" xml:space="default"/>`},
	{"a base", strict, `<a xml:base="http://evil.example/"/>`},
	{"a base by another prefix that is none", good, `<a xmlns:x="u" x:base="v" base="w"/>`},

	{"undeclared prefix", bad, `<x:a/>`},
	{"undeclared prefix of an attribute", bad, `<a x:b=""/>`},
	{"prefix out of its element", bad, `<a><b xmlns:x="u"/><x:c/></a>`},
	{"prefix for its own element", good, `<x:a xmlns:x="u"><x:b/></x:a>`},
	{"namespace twice", bad, `<a xmlns:x="u" xmlns:x="v"/>`},
	{"default namespace twice", bad, `<a xmlns="u" xmlns="v"/>`},
	{"no namespace for a prefix", bad, `<a xmlns:x=""/>`},
	{"no default namespace", good, `<a xmlns="u"><b xmlns=""/></a>`},
	{"xmlns:xml of another", bad, `<a xmlns:xml="u"/>`},
	{"xmlns:xml", good, `<a xmlns:xml="http://www.w3.org/XML/1998/namespace"/>`},
	{"the namespace of xml for another", bad, `<a xmlns:x="http://www.w3.org/XML/1998/namespace"/>`},
	{"the namespace of xml for none", bad, `<a xmlns="http://www.w3.org/XML/1998/namespace"/>`},
	{"xmlns:xmlns", bad, `<a xmlns:xmlns="u"/>`},
	{"the namespace of xmlns", bad, `<a xmlns:x="http://www.w3.org/2000/xmlns/"/>`},
	{"an element with the prefix xmlns", bad, `<xmlns:a/>`},
	{"xmlns: of nothing", bad, `<a xmlns:="u"/>`},
	{"space around a namespace", bad, `<a xmlns:x=" DAV: "/>`},
	{"a line end in a namespace", bad, "<a xmlns:x='DAV:&#10;'/>"},
	{"two colons", bad, `<x:a:b xmlns:x="u"/>`},
	{"colon first", bad, `<:a/>`},
	{"colon last", bad, `<a:/>`},
	{"two colons in an attribute", bad, `<a xmlns:x="u" x:b:c=""/>`},

	{"name with a digit first", bad, `<1a/>`},
	{"name with a hyphen first", bad, `<-a/>`},
	{"name with a dot first", bad, `<.a/>`},
	{"name with a digit behind the prefix", bad, `<x:1 xmlns:x="u"/>`},
	{"attribute with a digit first", bad, `<a 1b=""/>`},
	{"name with everything", good, `<_a-b.c9/>`},
	{"name with letters beyond ASCII", good, `<größe ключ="" 名前=""/>`},
	{"name with a middle dot", good, "<a\u00b7/>"},
	{"name with a middle dot first", bad, "<\u00b7a/>"},
	{"name with a multiplication sign", bad, "<a\u00d7/>"},
	{"name with a sign", bad, `<a$/>`},
	{"name with a slash", bad, `<a/b/>`},

	{"cut in a start", bad, `<a`},
	{"cut behind a less-than", bad, `<`},
	{"cut in a value", bad, `<a b="c`},
	{"cut in an attribute", bad, `<a b=`},
	{"cut in an empty tag", bad, `<a/`},
	{"cut in the root", bad, `<a>`},
	{"cut in text", bad, `<a>x`},
	{"cut in a child", bad, `<a><b/>`},
	{"cut in an end", bad, `<a></a`},
	{"cut in the end's mark", bad, `<a></`},
	{"cut in a comment", bad, `<a><!-- x`},
	{"cut in a comment's mark", bad, `<a><!-`},
	{"cut in a comment behind the root", bad, `<a/><!-- x --`},
	{"cut in CDATA", bad, `<a><![CDATA[x]]`},
	{"cut in CDATA's mark", bad, `<a><![CDAT`},
	{"cut in an instruction", bad, `<a><?x y?`},
	{"cut in an instruction behind the root", bad, `<a/><?x y`},
	{"cut in a declaration", bad, `<?xml version="1.0"`},
	{"cut behind the name of a declaration", bad, `<?xml`},
	{"cut in a reference", bad, `<a>&am`},
	{"cut in a character", bad, "<a>\xe2\x82"},
	{"cut in a character behind the root", bad, "<a/>\xe2"},

	{"deep", good, strings.Repeat("<a>", maxXMLDepth) + strings.Repeat("</a>", maxXMLDepth)},
	{"too deep", strict, strings.Repeat("<a>", maxXMLDepth+1) + strings.Repeat("</a>", maxXMLDepth+1)},
	{"many attributes", good, "<a" + attributes(maxXMLAttrs) + "/>"},
	{"too many attributes", strict, "<a" + attributes(maxXMLAttrs+1) + "/>"},
	{"too many namespaces", strict, manyNamespaces},
	{"a long name", good, "<" + strings.Repeat("a", maxXMLName) + "/>"},
	{"too long a name", strict, "<" + strings.Repeat("a", maxXMLName+1) + "/>"},
	{"too long a namespace", strict, "<a xmlns='" + strings.Repeat("a", maxXMLName+1) + "'/>"},
	{"a long tag", good, "<a b='" + strings.Repeat("c", windowSize-9) + "'/>"},
	{"too long a tag", strict, "<a b='" + strings.Repeat("c", windowSize-8) + "'/>"},
	{"too long a comment", strict, "<a><!--" + strings.Repeat("c", windowSize) + "--></a>"},
	{"]]> where a text is cut", bad, "<a>" + strings.Repeat("x", maxPiece-2) + "]]></a>"},
	{"a reference where a text is cut", good, "<a>" + strings.Repeat("x", maxPiece-2) + "&amp;</a>"},
	{"a line end where a text is cut", good, "<a>" + strings.Repeat("x", maxPiece-1) + "\r\n</a>"},
	{"a character where a text is cut", good, "<a>" + strings.Repeat("x", maxPiece-1) + "ä</a>"},
	{"the end of CDATA where it is cut", good, "<a><![CDATA[" + strings.Repeat("x", maxPiece-10) + "]]></a>"},
	{"long CDATA", good, "<a><![CDATA[" + strings.Repeat("]]\r\n>&<ä", windowSize) + "]]></a>"},
	{"long text", good, "<a>" + strings.Repeat("]] \r\n>&gt;ä", windowSize) + "</a>"},
}

var manyNamespaces = func() string {
	var b strings.Builder
	for i := range maxXMLPrefix/50 + 1 {
		b.WriteString("<a")
		for j := range 50 {
			fmt.Fprintf(&b, " xmlns:p%d='u'", i*50+j)
		}
		b.WriteString(">")
	}
	return b.String() + strings.Repeat("</a>", maxXMLPrefix/50+1)
}()

// What we refuse is what libxml2 refuses, and more only where it is said.
func TestDocumentsAgainstLibxml2(t *testing.T) {
	testlab.Need(t, "xmllint")
	t.Parallel()
	for _, tt := range documents {
		told, err := read(strings.NewReader(tt.doc))
		if (err == nil) != (tt.want == good) {
			t.Errorf("%s: we say %v", tt.name, err)
		}
		if byByte, errByByte := read(iotest.OneByteReader(strings.NewReader(tt.doc))); !slices.Equal(told, byByte) || (err == nil) != (errByByte == nil) {
			t.Errorf("%s: byte by byte %q, %v; in one piece %q, %v", tt.name, byByte, errByByte, told, err)
		}
		if theirs := libxml2(t, tt.doc); (theirs == "") != (tt.want != bad) {
			t.Errorf("%s: libxml2 says %q", tt.name, theirs)
		}
	}
}

var complaint = regexp.MustCompile(`(?m)^.*(error|Unsupported version).*$`)

// libxml2 returns what xmllint has against a document. Its exit code is silent on namespaces, and on XML 1.1.
func libxml2(t *testing.T, doc string) string {
	cmd := exec.CommandContext(t.Context(), "xmllint", "--noout", "--nonet", "-")
	cmd.Stdin = strings.NewReader(doc)
	out, err := cmd.CombinedOutput()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatal(err)
	}
	if said := complaint.FindString(string(out)); said != "" || err == nil {
		return said
	}
	return fmt.Sprintf("%v: %s", err, out)
}

// What a tokenizer remembers of other documents changes nothing: neither the tags of roots, nor names in other namespaces, nor more names
// than have places.
func TestTokenizerRemembersNothingButForm(t *testing.T) {
	docs := []string{
		`<a:x xmlns:a="DAV:"><a:href>1</a:href></a:x>`, `<a:x xmlns:a="urn:x"><a:href>1</a:href></a:x>`, `<a:x xmlns:a="DAV:"/>`, `<a:x xmlns:a="DAV:" />`,
		`<a:x xmlns:a="DAV:" b="1"><a:href/></a:x>`, `<a:x xmlns:a="DAV:"><a:href xmlns:a="urn:y"/><a:href/></a:x>`, `<x xmlns="DAV:"><href/></x>`,
		`<x xmlns="DAV:"><href xmlns=""/></x>`, `<x><href/></x>`, `<x><y xmlns="urn:y"><z/></y><z/></x>`, `<x><v><y xmlns="urn:y"><z/></y><z/></v></x>`,
		`<x xmlns="DAV:"><x xmlns="DAV:"></x><x/></x>`, `<x xmlns="DAV:"><b:x/></x>`, `<b:x/>`,
		`<x xmlns="DAV:"></x><x xmlns="DAV:"></x>`, `<x xmlns="urn:ä"><href/></x>`, `<?xml version="1.0" encoding="us-ascii"?><x xmlns="urn:ä"><href/></x>`,
		`<x xmlns="DAV:"><ä/></x>`, `<?xml version="1.0" encoding="us-ascii"?><x xmlns="DAV:"><ä/></x>`, `<x xmlns="DAV:" xml:base="/"><href/></x>`,
		`<x xmlns:b="DAV:" xmlns:c="DAV:"><href b:i="" c:i=""/></x>`, `<x xmlns:b="DAV:" b:i="" xmlns:c="DAV:" c:i=""/>`,
	}
	for i := range maxInterned - 10 {
		docs = append(docs, fmt.Sprintf(`<x xmlns="urn:%d" xmlns:p="DAV:"><p:n%d/><p:prop><n%d/></p:prop></x>`, i%40, i, i))
	}
	docs = append(docs, docs...)
	used := tokenizers.New().(*tokenizer)
	for _, doc := range docs {
		used.src = strings.NewReader(doc)
		got, gotErr := tellAll(used)
		fresh := tokenizers.New().(*tokenizer)
		fresh.src = strings.NewReader(doc)
		want, wantErr := tellAll(fresh)
		if !slices.Equal(got, want) || fmt.Sprint(gotErr) != fmt.Sprint(wantErr) {
			t.Fatalf("%s\nused  %q, %v\nfresh %q, %v", doc, got, gotErr, want, wantErr)
		}
		used.reset()
	}
}

// FuzzTokenizer: what we take encoding/xml takes too, and reads alike; and it is the same in whatever portions it comes, and when it comes
// again. encoding/xml has the names of XML's fourth edition, which are fewer: a client that has them too gets an error.
func FuzzTokenizer(f *testing.F) {
	for _, tt := range documents {
		f.Add([]byte(tt.doc))
	}
	for _, in := range hostile {
		f.Add([]byte(in))
	}
	f.Add([]byte(depth0))
	f.Add(answerOf(2, withData))
	f.Fuzz(func(t *testing.T, doc []byte) {
		ours, err := read(bytes.NewReader(doc))
		byByte, errByByte := read(iotest.OneByteReader(bytes.NewReader(doc)))
		if again, errAgain := read(bytes.NewReader(doc)); !slices.Equal(ours, again) || fmt.Sprint(err) != fmt.Sprint(errAgain) {
			t.Fatalf("%q\nat first %q, %v\nagain    %q, %v", doc, ours, err, again, errAgain)
		}
		if !slices.Equal(ours, byByte) || fmt.Sprint(err) != fmt.Sprint(errByByte) {
			t.Fatalf("%q\nin one piece %q, %v\nbyte by byte %q, %v", doc, ours, err, byByte, errByByte)
		}
		if err != nil {
			return
		}
		theirs, err := readByXML(bytes.TrimPrefix(doc, []byte("\ufeff")))
		if err != nil && strings.Contains(err.Error(), "invalid XML name") && bytes.ContainsFunc(doc, func(r rune) bool { return r > 0x7f }) {
			return
		}
		if err != nil || !slices.Equal(ours, theirs) {
			t.Fatalf("%q\nwe read  %q\nthey read %q, %v", doc, ours, theirs, err)
		}
	})
}

// TestTokenizerKeepsLittle of documents that are made to fill it.
func TestTokenizerKeepsLittle(t *testing.T) {
	var b strings.Builder
	b.WriteString("<a>")
	for i := range maxInterned - 10 {
		fmt.Fprintf(&b, `<n%d xmlns="%d%s"/>`, i, i, strings.Repeat("x", 900))
	}
	b.WriteString("</a>")
	tokens := newTokenizer(strings.NewReader(b.String()))
	defer tokens.free()
	for {
		_, err := tokens.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	kept := 0
	for whole, q := range tokens.known.all {
		kept += len(whole) + len(q.name.space) + len(q.name.local)
	}
	if most := 3 * maxInterned * longInterned; kept > most {
		t.Errorf("it keeps %d bytes of names, %d at most", kept, most)
	}
}
