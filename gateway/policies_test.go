package gateway

import (
	"slices"
	"testing"

	"postern/authstore"
	"postern/config"
)

// The configuration knows the presets by name only.
func TestPresetsOfPolicies(t *testing.T) {
	var names []string
	for _, p := range authstore.Presets {
		names = append(names, p.Name)
	}
	if !slices.Equal(names, config.Presets) {
		t.Errorf("config knows %v, authstore %v", config.Presets, names)
	}
}
