package demo

import (
	"strings"
	"time"

	"github.com/emersion/go-ical"
	"github.com/teambition/rrule-go"
)

// Filters of calendar-query (RFC 4791 section 9.7) and addressbook-query (RFC 6352 section 10.5) are evaluated as they stand
// in the request. In doubt an item matches: a client drops what it did not want, but can't miss what it was not told.

// maxOccurrences bounds the search for an occurrence in a time range.
const maxOccurrences = 10_000

// hasComponent evaluates a comp-filter.
func hasComponent(filter *node, among []*ical.Component) bool {
	if filter == nil {
		return true
	}
	for _, c := range among {
		if strings.EqualFold(c.Name, filter.attr("name")) {
			if isNotDefined(filter) {
				return false
			}
			if matchAll(filter, c) {
				return true
			}
		}
	}
	return isNotDefined(filter)
}

func isNotDefined(filter *node) bool {
	for _, n := range filter.nodes {
		if n.name.Local == "is-not-defined" {
			return true
		}
	}
	return false
}

// matchAll evaluates what stands in a comp-filter or in the filter of an address book.
func matchAll(filter *node, c *ical.Component) bool {
	var results []bool
	for _, n := range filter.nodes {
		switch n.name.Local {
		case "comp-filter":
			results = append(results, hasComponent(n, c.Children))
		case "prop-filter":
			results = append(results, hasProperty(n, c.Props.Values(n.attr("name"))))
		case "time-range":
			results = append(results, overlaps(c, parseRange(n)))
		}
	}
	return combine(filter, results)
}

// combine joins tests: in calendars all must hold, in address books any, unless the element says otherwise.
func combine(filter *node, results []bool) bool {
	anyOf := filter.name.Space == carddavSpace && filter.attr("test") != "allof"
	for _, result := range results {
		if result == anyOf {
			return result
		}
	}
	return len(results) == 0 || !anyOf
}

// hasProperty evaluates a prop-filter.
func hasProperty(filter *node, properties []ical.Prop) bool {
	if isNotDefined(filter) {
		return len(properties) == 0
	}
	for _, p := range properties {
		if matchProperty(filter, p) {
			return true
		}
	}
	return false
}

func matchProperty(filter *node, p ical.Prop) bool {
	var results []bool
	for _, n := range filter.nodes {
		switch n.name.Local {
		case "text-match":
			results = append(results, matchText(n, plain(p)))
		case "param-filter":
			results = append(results, hasParameter(n, p.Params.Values(n.attr("name"))))
		case "time-range":
			t, err := p.DateTime(time.UTC)
			results = append(results, err != nil || parseRange(n).holds(t))
		}
	}
	return combine(filter, results)
}

// plain is the value without its escapes, where they are ones of text.
func plain(p ical.Prop) string {
	if value, err := p.Text(); err == nil {
		return value
	}
	return p.Value
}

func hasParameter(filter *node, values []string) bool {
	if isNotDefined(filter) {
		return len(values) == 0
	}
	for _, n := range filter.nodes {
		if n.name.Local == "text-match" {
			for _, value := range values {
				if matchText(n, value) {
					return true
				}
			}
			return false
		}
	}
	return len(values) > 0
}

// matchText compares as i;unicode-casemap does, roughly, unless octets are asked for.
func matchText(filter *node, value string) bool {
	want := filter.text
	if filter.attr("collation") != "i;octet" {
		want, value = strings.ToLower(want), strings.ToLower(value)
	}
	var match bool
	switch filter.attr("match-type") {
	case "equals":
		match = value == want
	case "starts-with":
		match = strings.HasPrefix(value, want)
	case "ends-with":
		match = strings.HasSuffix(value, want)
	default:
		match = strings.Contains(value, want)
	}
	return match != (filter.attr("negate-condition") == "yes")
}

// timeRange is half open; a zero time means no bound (RFC 4791 section 9.9).
type timeRange struct{ start, end time.Time }

func parseRange(n *node) timeRange {
	const layout = "20060102T150405Z"
	start, _ := time.Parse(layout, n.attr("start")) // zero where it is none
	end, _ := time.Parse(layout, n.attr("end"))
	return timeRange{start, end}
}

func (r timeRange) holds(t time.Time) bool { return !t.Before(r.start) && r.startsBefore(t) }

func (r timeRange) startsBefore(t time.Time) bool { return r.end.IsZero() || t.Before(r.end) }

// overlaps reports whether a component, or one of its occurrences, lies in a range. Times without a zone are taken as UTC.
func overlaps(c *ical.Component, r timeRange) bool {
	start, length, known := span(c)
	if !known || c.Props.Get(ical.PropRecurrenceDates) != nil { // go-ical has no sets of single dates
		return true
	}
	rule := c.Props.Get(ical.PropRecurrenceRule)
	if rule == nil {
		return r.meets(start, length)
	}
	option, err := c.Props.RecurrenceRule()
	if err != nil || option.Freq >= rrule.HOURLY { // a search for such could take hours
		return true
	}
	set, err := c.RecurrenceSet(time.UTC)
	if err != nil {
		return true
	}
	next := set.Iterator()
	for range maxOccurrences {
		occurrence, more := next()
		if !more || !r.startsBefore(occurrence) {
			return false
		}
		if r.meets(occurrence, length) {
			return true
		}
	}
	return true
}

func (r timeRange) meets(start time.Time, length time.Duration) bool {
	end := start.Add(length)
	return r.startsBefore(start) && (end.After(r.start) || length == 0 && !start.Before(r.start))
}

// span tells when an event or a to-do happens, or happens first. It is not known of to-dos without dates, and where a time
// zone has no name that we know.
func span(c *ical.Component) (start time.Time, length time.Duration, known bool) {
	first := c.Props.Get(ical.PropDateTimeStart)
	due := c.Props.Get(ical.PropDue)
	if first == nil {
		first = due
	}
	if first == nil || c.Name != ical.CompEvent && c.Name != ical.CompToDo {
		return start, 0, false
	}
	start, err := first.DateTime(time.UTC)
	if err != nil {
		return start, 0, false
	}
	var end time.Time
	if due != nil {
		end, err = due.DateTime(time.UTC)
	} else {
		end, err = (&ical.Event{Component: c}).DateTimeEnd(time.UTC)
	}
	return start, end.Sub(start), err == nil
}
