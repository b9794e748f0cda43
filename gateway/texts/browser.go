package texts

import "strings"

// browserMarks tell browsers by their User-Agent. Those that carry others' names in theirs stand first.
var browserMarks = []struct{ mark, name string }{
	{"Edg", "Edge"}, {"OPR/", "Opera"}, {"SamsungBrowser/", "Samsung Internet"}, {"Vivaldi/", "Vivaldi"}, {"FxiOS/", "Firefox"}, {"Firefox/", "Firefox"},
	{"CriOS/", "Chrome"}, {"Chromium/", "Chromium"}, {"Chrome/", "Chrome"}, {"Safari/", "Safari"}, {"curl/", "curl"},
}

var systemMarks = []struct{ mark, name string }{
	{"iPhone", "iPhone"}, {"iPad", "iPad"}, {"Android", "Android"}, {"Windows", "Windows"}, {"CrOS", "ChromeOS"}, {"Mac OS X", "macOS"}, {"Macintosh", "macOS"}, {"Linux", "Linux"},
}

// Browser says in plain words what a User-Agent means: "Firefox on Linux". It is for people to recognise their own by, and no proof.
func (p *Printer) Browser(agent string) string {
	var name, system string
	for _, b := range browserMarks {
		if strings.Contains(agent, b.mark) {
			name = b.name
			break
		}
	}
	for _, s := range systemMarks {
		if strings.Contains(agent, s.mark) {
			system = s.name
			break
		}
	}
	switch {
	case name != "" && system != "":
		return p.Say("browser.on", name, system)
	case name+system != "":
		return name + system
	}
	return p.Say("browser.unknown")
}
