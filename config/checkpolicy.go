package config

import (
	"fmt"
	"strings"
)

// Presets are the names of what an app password may be for; package authstore says what each opens.
var Presets = []string{"everything", "mail", "pop", "send", "mail-read", "dav", "calendar", "contacts", "calendar-read"}

// leastIdle is the shortest time, in days, after which an app password that is not used may end: people are away for a week.
const leastIdle = 7

func (w *walker) checkPolicies() {
	for i, p := range w.cfg.Policies {
		path := fmt.Sprintf("policy[%d]", i)
		for _, d := range p.Domains {
			if strings.ContainsAny(d, "@ /*") || !strings.Contains(d, ".") {
				w.say(path+".domains", fmt.Sprintf("%q is no domain such as \"example.org\"; without domains and groups a policy is for all accounts", d))
			}
		}
		w.checkGroups(path+".groups", p.Groups)
		if len(p.Domains)+len(p.Groups) == 0 && i < len(w.cfg.Policies)-1 {
			w.say(path, "this policy is for all accounts, so that none of those behind it ever counts; put it last")
		}
		for _, name := range p.Presets {
			w.oneOf(path+".presets", name, Presets...)
		}
		switch {
		case p.MostActive < 1 || p.MostActive > 25:
			w.say(path+".most_active", "most_active is between 1 and 25")
		case p.LongestDays < 0 || p.LongestDays > 36500:
			w.say(path+".longest_days", "longest_days is between 1 and 36500, or 0 for any")
		}
		if p.IdleDays != 0 && (p.IdleDays < leastIdle || p.IdleDays > 3650) {
			w.say(path+".idle_days", fmt.Sprintf("idle_days is between %d and 3650, or 0 for never", leastIdle))
		}
		if w.cfg.Notices.Address == "" && p.IdleDays > 0 {
			w.say(path+".idle_days", "idle_days ends nothing before its owner was told by mail; set [notices]")
		}
		if w.cfg.Notices.Address == "" && p.YearlyNotice {
			w.say(path+".yearly_notice", "yearly_notice is told by mail; set [notices]")
		}
	}
}
