package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"postern/authstore/apitoken"
)

// fuzzCases is how many requests are made of each operation; POSTERN_API_FUZZ makes more, POSTERN_API_SEED others.
const fuzzCases = 25

func fromEnv(name string, standard int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return standard
}

// generator makes requests from schemas, and worse ones from these.
type generator struct{ *rand.Rand }

// odd are the words that programs trip over.
var odd = []string{"", " ", "a\x00b", "\u202e", "é@exámple.org", "ａlice@example.test", "../../etc", "%2e%2e", "'; DROP TABLE account; --", "\\", "\"", "<img src=x>", "\ufffd",
	"null", "-1", "9223372036854775808", "*", "alice@example.test", "postern_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", strings.Repeat("ü", 300), strings.Repeat("a.", 200) + "@x", "2001-01-01T00:00:00Z",
	"9999-12-31T23:59:59-01:00", "0000-01-01T00:00:00Z", "192.0.2.0/24", "::ffff:192.0.2.1/120", "fe80::1%eth0", "calendar", "everything", "mail", "ldap"}

func (g generator) word(s *openapi3.Schema) string {
	switch {
	case len(s.Enum) > 0:
		return fmt.Sprint(s.Enum[g.IntN(len(s.Enum))])
	case s.Format == "date-time":
		return "2199-01-02T03:04:05Z"
	case g.IntN(2) == 0:
		return []string{"alice@example.test", "bob@example.test", "mail", "calendar", "everything", "192.0.2.0/24", "dovecot"}[g.IntN(7)]
	}
	n := 1 + g.IntN(min(20, int(maxOf(s.MaxLength, 20))))
	return strings.Repeat(string(rune('a'+g.IntN(26))), n)
}

func maxOf(n *uint64, standard uint64) uint64 {
	if n == nil {
		return standard
	}
	return *n
}

// value makes one that fits a schema.
func (g generator) value(s *openapi3.Schema) any {
	switch {
	case s.Type.Is("string"):
		return g.word(s)
	case s.Type.Is("integer"), s.Type.Is("number"):
		return 1 + g.IntN(50)
	case s.Type.Is("boolean"):
		return g.IntN(2) == 0
	case s.Type.Is("array"):
		list := []any{}
		for range g.IntN(4) {
			list = append(list, g.value(s.Items.Value))
		}
		return list
	}
	object := make(m)
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) { // in order, so that a seed means the same again
		p := s.Properties[name]
		if slices.Contains(s.Required, name) || g.IntN(2) == 0 {
			object[name] = g.value(p.Value)
		}
	}
	return object
}

// worse makes a value into one that may not fit.
func (g generator) worse(v any) any {
	if g.IntN(3) > 0 {
		switch at := v.(type) {
		case m:
			object := make(m)
			for _, name := range slices.Sorted(maps.Keys(at)) {
				inner := at[name]
				switch g.IntN(4) {
				case 0:
				case 1:
					object[name] = g.worse(inner)
				default:
					object[name] = inner
				}
			}
			if g.IntN(3) == 0 {
				object[odd[g.IntN(len(odd))]] = g.anything(0)
			}
			return object
		case []any:
			list := slices.Clone(at)
			for i := range list {
				list[i] = g.worse(list[i])
			}
			for range g.IntN(3) * 60 {
				list = append(list, g.anything(2))
			}
			return list
		}
	}
	return g.anything(0)
}

func (g generator) anything(depth int) any {
	switch g.IntN(9) {
	case 0:
		return nil
	case 1:
		return g.IntN(2) == 0
	case 2:
		return []any{-1, 0, math.MaxInt64, math.MinInt64, uint64(math.MaxUint64), 1e300, -0.5, json.Number("1e400"), json.Number("123456789012345678901234567890")}[g.IntN(9)]
	case 3:
		if depth < 3 {
			return []any{g.anything(depth + 1), g.anything(depth + 1)}
		}
	case 4:
		if depth < 3 {
			return m{odd[g.IntN(len(odd))]: g.anything(depth + 1)}
		}
	case 5:
		return json.RawMessage(strings.Repeat(`{"a":[`, 200) + "1" + strings.Repeat("]}", 200))
	}
	return odd[g.IntN(len(odd))]
}

// request makes one of an operation: as the document has it, or with a fault.
func (g generator) request(method, path string, op *openapi3.Operation, faulty bool) request {
	q := request{method: method, path: path}
	query := make(url.Values)
	for _, p := range op.Parameters {
		text := fmt.Sprint(g.value(p.Value.Schema.Value))
		if list, ok := g.value(p.Value.Schema.Value).([]any); ok {
			var words []string
			for _, one := range list {
				words = append(words, fmt.Sprint(one))
			}
			text = strings.Join(words, ",")
		}
		if faulty && g.IntN(3) == 0 {
			text = fmt.Sprint(g.anything(3))
		}
		switch {
		case p.Value.In == "path":
			q.path = strings.Replace(q.path, "{"+p.Value.Name+"}", url.PathEscape(text), 1)
		case p.Value.In == "header":
			if !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
				q.header = append(q.header, p.Value.Name, text)
			}
		case p.Value.Required || g.IntN(2) == 0:
			query.Add(p.Value.Name, text)
		}
	}
	if faulty && g.IntN(6) == 0 {
		query.Add(odd[g.IntN(len(odd))], "x")
	}
	if len(query) > 0 {
		q.path += "?" + query.Encode()
	}
	if op.RequestBody == nil {
		return q
	}
	if op.RequestBody.Value.Content["application/json"] == nil {
		q.header = append(q.header, "Content-Type", "text/csv")
		q.body = "address,aliases\n" + g.word(&openapi3.Schema{}) + "," + g.word(&openapi3.Schema{}) + "\n"
		if faulty {
			q.body = fmt.Sprint(q.body, odd[g.IntN(len(odd))], "\"\n;,", odd[g.IntN(len(odd))])
		}
		return q
	}
	body := g.value(op.RequestBody.Value.Content["application/json"].Schema.Value)
	if !faulty {
		q.body = body
		return q
	}
	switch g.IntN(8) {
	case 0:
		q.header = append(q.header, "Content-Type", []string{"text/plain", "application/xml", "application/json; charset=latin1", "multipart/form-data; boundary=x", ";;", "application/cbor"}[g.IntN(6)])
	case 1:
		text, _ := json.Marshal(body)
		q.body = string(text[:g.IntN(len(text))])
		return q
	case 2:
		q.body = strings.Repeat("[", 1+g.IntN(15000))
		return q
	}
	text, err := json.Marshal(g.worse(body))
	if err != nil { // a number that is none
		text = []byte("1e999999")
	}
	q.body = string(text)
	return q
}

// Requests that are made from the document, and worse ones, are never answered with a defect of ours, nor with anything that the document
// does not have; and what a token may not do is not done.
func TestFuzzFromTheDocument(t *testing.T) {
	t.Parallel()
	l := newLab(t, "")
	l.document()
	seed, cases := uint64(fromEnv("POSTERN_API_SEED", 1)), fromEnv("POSTERN_API_FUZZ", fuzzCases)
	g := generator{rand.New(rand.NewPCG(seed, 0))}
	all, none := l.token(apitoken.Everything), l.token(apitoken.KeysRead)
	got, well := make(map[int]int), make(map[string]bool)
	for _, path := range l.spec.Paths.InMatchingOrder() {
		item := l.spec.Paths.Value(path)
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
			op := item.GetOperation(method)
			if op == nil {
				continue
			}
			for i := range cases {
				if i%10 == 0 { // earlier ones may have removed them
					for _, name := range []string{"alice@example.test", "bob@example.test"} {
						l.send(request{method: "POST", path: "/accounts", body: m{"address": name}, token: all})
					}
				}
				q := g.request(method, path, op, i%4 > 0)
				if slices.Equal((*op.Security)[0]["token"], []string{"keys:read"}) || len((*op.Security)[0]["token"]) == 0 {
					q.token = all
				} else if i%8 == 0 {
					before := l.fingerprint()
					q.token = none
					if r, _ := l.sent(q); r.status != 403 && r.status != 404 && r.status != 405 || l.fingerprint() != before {
						t.Errorf("seed %d: %s %s %v without the scope: %d %.300s", seed, q.method, q.path, q.body, r.status, r.text)
					}
				}
				q.token = all
				r, sent := l.sent(q)
				got[r.status]++
				if r.status < 300 {
					well[op.OperationID] = true
				}
				unreachable := r.status == 502 && op.Responses.Value("502") != nil // nobody answers at the lab's backend
				if r.status >= 500 && !unreachable || r.status < 200 || r.status >= 300 && r.status < 400 {
					t.Errorf("seed %d: %s %s %v: %d %.500s", seed, q.method, q.path, q.body, r.status, r.text)
				}
				if _, _, err := l.router.FindRoute(sent); err != nil && (r.status == 404 || r.status == 405) { // a path that is another one, or none
					continue
				}
				if err := l.fits(sent, r); err != nil {
					t.Errorf("seed %d: %s %s %v: %d does not fit the document: %v\n%.500s", seed, q.method, q.path, q.body, r.status, err, r.text)
				}
			}
		}
	}
	t.Logf("answers: %v", got)
	if got[422] == 0 || got[400] == 0 || got[404] == 0 || len(well) < 15 {
		t.Errorf("answers %v, %d operations ended well: the requests are too much alike", got, len(well))
	}
	if text := l.log.String(); strings.Contains(text, "panic") || strings.Contains(text, "level=ERROR") {
		at := max(strings.Index(text, "panic"), strings.Index(text, "level=ERROR"))
		t.Errorf("the log tells of a defect: %.3000s", text[max(0, at-200):])
	}
}
