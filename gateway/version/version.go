// Package version tells which Postern this is.
package version

import "runtime/debug"

// released is set by the linker in releases: -ldflags "-X postern/gateway/version.released=v1.2.3".
var released = ""

// Text is the release's version, else the commit, else "devel".
func Text() string {
	if released != "" {
		return released
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "devel-" + s.Value[:12]
		}
	}
	return "devel"
}
