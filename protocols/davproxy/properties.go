package davproxy

// treatment says what becomes of a property; zero: it passes, with its hrefs mapped.
type treatment uint8

const (
	hides treatment = iota + 1
	schedules
	rebuilds
	holdsEvents
	holdsCards
)

// treatments has the properties of the tables in one, for one look at each.
var treatments = func() map[name]treatment {
	all := make(map[name]treatment)
	for how, names := range map[treatment]map[name]bool{hides: hidden, schedules: scheduling, rebuilds: rebuilt} {
		for n := range names {
			all[n] = how
		}
	}
	for n, k := range contents {
		all[n] = map[kind]treatment{calendar: holdsEvents, contacts: holdsCards}[k]
	}
	return all
}()

// maxTold bounds the names that are read of a property that is rebuilt.
const maxTold = 100

// scheduling are properties that only grants see which open the boxes.
var scheduling = map[name]bool{
	{nsCalDAV, "calendar-free-busy-set"}:        true,
	{nsCalDAV, "calendar-user-type"}:            true,
	{nsCalDAV, "schedule-default-calendar-URL"}: true,
	{nsCalDAV, "schedule-default-tasks-URL"}:    true,
	{nsCalDAV, "schedule-inbox-URL"}:            true,
	{nsCalDAV, "schedule-outbox-URL"}:           true,
}

// hidden are properties that lead out of the account's own collections, or tell what is not for apps.
var hidden = map[name]bool{
	{nsDAV, "acl"}:                                   true,
	{nsDAV, "acl-restrictions"}:                      true,
	{nsDAV, "add-member"}:                            true,
	{nsDAV, "alternate-URI-set"}:                     true,
	{nsDAV, "group-member-set"}:                      true,
	{nsDAV, "group-membership"}:                      true,
	{nsDAV, "inherited-acl-set"}:                     true,
	{nsDAV, "invite"}:                                true,
	{nsDAV, "lockdiscovery"}:                         true,
	{nsDAV, "principal-collection-set"}:              true,
	{nsDAV, "supported-privilege-set"}:               true,
	{nsDAV, "supportedlock"}:                         true,
	{nsCalendar, "allowed-sharing-modes"}:            true,
	{nsCalendar, "calendar-proxy-read-for"}:          true,
	{nsCalendar, "calendar-proxy-write-for"}:         true,
	{nsCalendar, "dropbox-home-URL"}:                 true,
	{nsCalendar, "email-address-set"}:                true,
	{nsCalendar, "invite"}:                           true,
	{nsCalendar, "notification-URL"}:                 true,
	{nsCalendar, "pre-publish-url"}:                  true,
	{nsCalendar, "publish-url"}:                      true,
	{nsCalendar, "push-transports"}:                  true,
	{nsCalendar, "pushkey"}:                          true,
	{"https://bitfire.at/webdav-push", "topic"}:      true,
	{"https://bitfire.at/webdav-push", "transports"}: true,
}

// contents are the properties that hold members themselves, by the kind they belong to.
var contents = map[name]kind{{nsCalDAV, "calendar-data"}: calendar, {nsCardDAV, "address-data"}: contacts}

// standards are the namespaces of what an error says for programs.
var standards = map[string]bool{nsDAV: true, nsCalDAV: true, nsCardDAV: true, nsCalendar: true}
