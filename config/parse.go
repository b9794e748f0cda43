package config

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// Parse reads and checks a configuration; name stands in its messages. All problems are told at once where that is possible: a
// fault of TOML's syntax hides the rest.
func Parse(name string, text []byte) (*Config, error) {
	problems := &Problems{File: name}
	if err := toml.Unmarshal(text, new(map[string]any)); err != nil { // syntax and keys that stand twice
		problem := Problem{Text: err.Error()}
		if d, ok := errors.AsType[*toml.DecodeError](err); ok {
			problem.Line, problem.Column = d.Position()
			problem.Text = strings.TrimPrefix(d.Error(), "toml: ")
		}
		problems.List = append(problems.List, problem)
		return nil, problems
	}
	w := &walker{problems: problems, where: make(map[string]position), broken: make(map[string]bool), cfg: defaults()}
	w.parser.Reset(text)
	w.walk()
	w.check()
	if err := problems.sorted(); err != nil {
		return nil, err
	}
	return w.cfg, nil
}

type position struct{ line, column int }

// walker goes over the file's expressions, knows where each key stands, and stores each value in its field. go-toml's own decoder
// stops at the first value of a wrong type and keeps no positions.
type walker struct {
	parser   unstable.Parser
	problems *Problems
	cfg      *Config
	where    map[string]position // by path, such as "listener[1].address"
	broken   map[string]bool     // paths whose value could not be read: nothing more is said of them
}

func (w *walker) walk() {
	table, path := reflect.ValueOf(w.cfg).Elem(), ""
	for w.parser.NextExpression() {
		e := w.parser.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table, path = w.enter(e)
		case unstable.KeyValue:
			if table.IsValid() {
				w.set(table, path, e)
			}
		}
	}
}

// enter finds the struct of a [table] or makes the next of an [[array]]; an invalid value if there is none.
func (w *walker) enter(e *unstable.Node) (reflect.Value, string) {
	v, path := reflect.ValueOf(w.cfg).Elem(), ""
	for keys := e.Key(); keys.Next(); {
		key := keys.Node()
		field, ok := w.field(v, path, key, "table")
		if !ok {
			return reflect.Value{}, ""
		}
		path = join(path, string(key.Data))
		if field.Kind() == reflect.Slice && field.Type().Elem().Kind() == reflect.Struct {
			if !keys.IsLast() || e.Kind != unstable.ArrayTable {
				w.complain(key, fmt.Sprintf("%s is a list: write [[%s]]", path, path))
				return reflect.Value{}, ""
			}
			field.Set(reflect.Append(field, newElement(field.Type().Elem())))
			path += "[" + strconv.Itoa(field.Len()-1) + "]"
			field = field.Index(field.Len() - 1)
		}
		if field.Kind() != reflect.Struct || keys.IsLast() && e.Kind == unstable.ArrayTable && !strings.HasSuffix(path, "]") {
			w.complain(key, fmt.Sprintf("%s is no list of tables", path))
			return reflect.Value{}, ""
		}
		w.where[path] = w.position(key)
		v = field
	}
	return v, path
}

func newElement(t reflect.Type) reflect.Value {
	switch t {
	case reflect.TypeFor[Listener]():
		return reflect.ValueOf(defaultListener())
	case reflect.TypeFor[Backend]():
		return reflect.ValueOf(defaultBackend())
	case reflect.TypeFor[OAuth]():
		return reflect.ValueOf(defaultOAuth())
	case reflect.TypeFor[Route]():
		return reflect.ValueOf(defaultRoute())
	case reflect.TypeFor[Policy]():
		return reflect.ValueOf(defaultPolicy())
	}
	return reflect.New(t).Elem()
}

// set stores one key = value.
func (w *walker) set(table reflect.Value, path string, e *unstable.Node) {
	for keys := e.Key(); keys.Next(); {
		key := keys.Node()
		field, ok := w.field(table, path, key, "key")
		if !ok {
			return
		}
		path = join(path, string(key.Data))
		w.where[path] = w.position(key)
		if !keys.IsLast() {
			if field.Kind() != reflect.Struct {
				w.complain(key, fmt.Sprintf("%s holds no keys", path))
				return
			}
			table = field
			continue
		}
		w.assign(field, path, key, e.Value())
	}
}

func (w *walker) field(v reflect.Value, path string, key *unstable.Node, what string) (reflect.Value, bool) {
	var known []string
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("toml")
		if name == string(key.Data) {
			return v.Field(i), true
		}
		known = append(known, name)
	}
	in := ""
	if path != "" {
		in = " in [" + strings.TrimRight(path, "[]0123456789") + "]"
	}
	hint := suggestion(string(key.Data), known)
	if at := homes(reflect.TypeFor[Config](), "", string(key.Data)); len(at) > 0 && !similar(string(key.Data), known) {
		hint = "; it belongs " + strings.Join(at, ", or ")
	}
	w.complain(key, fmt.Sprintf("unknown %s %q%s%s", what, key.Data, in, hint))
	return reflect.Value{}, false
}

// homes tells where a key may stand that was written elsewhere: TOML takes whatever follows a [table] for a part of it.
func homes(t reflect.Type, table, name string) (places []string) {
	for f := range t.Fields() {
		tag, inner, brackets := f.Tag.Get("toml"), f.Type, "[%s]"
		if inner.Kind() == reflect.Slice {
			inner, brackets = inner.Elem(), "[[%s]]"
		}
		switch {
		case tag == name && table == "":
			places = append(places, "at the top, above the first [table]")
		case tag == name:
			places = append(places, "in "+table)
		case inner.Kind() == reflect.Struct && inner.PkgPath() == t.PkgPath():
			places = append(places, homes(inner, fmt.Sprintf(brackets, join(strings.Trim(table, "[]"), tag)), name)...)
		}
	}
	return places
}

// assign reads a value into a field of a fitting type.
func (w *walker) assign(field reflect.Value, path string, key, value *unstable.Node) {
	wrong := func(want string) {
		w.complain(key, fmt.Sprintf("%s must be %s", path, want))
		w.broken[path] = true
	}
	if t, ok := field.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if value.Kind != unstable.String {
			wrong("text in quotes" + example(field))
			return
		}
		if err := t.UnmarshalText(value.Data); err != nil {
			w.complain(key, path+": "+plainText(field, value.Data, err))
			w.broken[path] = true
		}
		return
	}
	switch field.Kind() {
	case reflect.String:
		if value.Kind != unstable.String {
			wrong("text in quotes")
			return
		}
		field.SetString(string(value.Data))
	case reflect.Bool:
		if value.Kind != unstable.Bool {
			wrong("true or false, without quotes")
			return
		}
		field.SetBool(string(value.Data) == "true")
	case reflect.Int:
		n, err := strconv.ParseInt(strings.ReplaceAll(string(value.Data), "_", ""), 0, 32)
		if value.Kind != unstable.Integer || err != nil || n < 0 {
			wrong("a whole number, 0 or more")
			return
		}
		field.SetInt(n)
	case reflect.Slice:
		w.assignList(field, path, key, value, wrong)
	case reflect.Struct:
		if value.Kind != unstable.InlineTable {
			wrong("a table")
			return
		}
		for kvs := value.Children(); kvs.Next(); {
			w.set(field, path, kvs.Node())
		}
	}
}

func (w *walker) assignList(field reflect.Value, path string, key, value *unstable.Node, wrong func(string)) {
	if value.Kind != unstable.Array {
		wrong("a list in brackets")
		return
	}
	field.SetZero() // the default gives way
	for items := value.Children(); items.Next(); {
		item := newElement(field.Type().Elem())
		settable := reflect.New(item.Type()).Elem()
		settable.Set(item)
		at := path + "[" + strconv.Itoa(field.Len()) + "]"
		w.where[at] = w.position(key)
		w.assign(settable, at, key, items.Node())
		field.Set(reflect.Append(field, settable))
	}
}

// example shows how a value of a field's type is written.
func example(field reflect.Value) string {
	switch field.Interface().(type) {
	case Duration:
		return `, such as "60s"`
	case Size:
		return `, such as "20MiB"`
	}
	return `, such as "192.0.2.0/24"`
}

func plainText(field reflect.Value, text []byte, err error) string {
	switch field.Interface().(type) {
	case Duration, Size:
		return err.Error()
	}
	return fmt.Sprintf("%q is not a network such as \"192.0.2.0/24\" or \"2001:db8::/32\"", text)
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func (w *walker) position(n *unstable.Node) position {
	at := w.parser.Shape(w.parser.Range(n.Data)).Start
	return position{at.Line, at.Column}
}

func (w *walker) complain(n *unstable.Node, text string) {
	at := w.position(n)
	w.problems.List = append(w.problems.List, Problem{at.line, at.column, text})
}
