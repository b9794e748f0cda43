package config

import _ "embed"

//go:embed defaults.toml
var defaultsText string

//go:embed example.toml
var exampleText string

// Defaults is the full annotated file: every key, commented out at its default.
func Defaults() string { return defaultsText }

// Example is what a site with Dovecot, Postfix and Radicale needs.
func Example() string { return exampleText }
