package authstore

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxLabel bounds a label, in runes.
const MaxLabel = 100

// ErrLabel: a label is empty, too long, or holds what can't be shown.
var ErrLabel = fmt.Errorf("the label must have 1 to %d printable characters", MaxLabel)

// CleanLabel is a label as people typed it, of an app password or a second factor, as it is kept: without the blanks around it. ErrLabel.
// Characters that turn the direction of writing are refused, for they would turn the words of the page around the label too; those that
// join emojis are not.
func CleanLabel(label string) (string, error) {
	label = strings.TrimSpace(label)
	if label == "" || utf8.RuneCountInString(label) > MaxLabel || !utf8.ValidString(label) ||
		strings.ContainsFunc(label, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }) {
		return "", ErrLabel
	}
	return label, nil
}
