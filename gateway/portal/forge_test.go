package portal

import (
	"encoding/base64"
	"encoding/json"
	"strings"

	"postern/internal/testlab"
)

// field replaces a field of an answer in JSON; an empty one goes.
func field(name, value string) func(*testlab.TokenServer, []byte) []byte {
	return func(_ *testlab.TokenServer, body []byte) []byte {
		return rewrite(body, func(m map[string]any) {
			if m[name] = value; value == "" {
				delete(m, name)
			}
		})
	}
}

func rewrite(body []byte, change func(map[string]any)) []byte {
	var m map[string]any
	if json.Unmarshal(body, &m) != nil {
		return body
	}
	change(m)
	out, _ := json.Marshal(m)
	return out
}

// rewriteID changes the claims of an answer's ID token, as the server itself can.
func rewriteID(body []byte, change func(map[string]any)) []byte {
	return rewrite(body, func(m map[string]any) {
		text, _ := m["id_token"].(string)
		parts := strings.Split(text, ".")
		if len(parts) != 3 {
			return
		}
		claims, _ := base64.RawURLEncoding.DecodeString(parts[1])
		m["id_token"] = parts[0] + "." + base64.RawURLEncoding.EncodeToString(rewrite(claims, change)) + "." + parts[2]
	})
}
