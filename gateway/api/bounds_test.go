package api

import (
	"encoding/json"
	"testing"
)

// No operation is answered that the document does not have, and none stands there that is not answered.
func TestNothingIsUndocumented(t *testing.T) {
	t.Parallel()
	s := New(Options{})
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
			Security    []map[string][]string
		}
	}
	if err := json.Unmarshal(s.Document(), &doc); err != nil {
		t.Fatal(err)
	}
	documented := 0
	for path, methods := range doc.Paths {
		for method, op := range methods {
			documented++
			found := false
			for pattern, b := range s.bounds {
				if b.operation == op.OperationID {
					found = pattern == upper(method)+" "+path && len(op.Security) == 1 && (len(op.Security[0]["token"]) == 0) == (b.scope == "")
				}
			}
			if !found {
				t.Errorf("%s %s (%s) is in the document and is answered otherwise", method, path, op.OperationID)
			}
		}
	}
	if documented != len(s.bounds) || documented < 30 {
		t.Errorf("%d operations are documented, %d are answered", documented, len(s.bounds))
	}
}

func upper(method string) string {
	return map[string]string{"get": "GET", "post": "POST", "put": "PUT", "patch": "PATCH", "delete": "DELETE"}[method]
}
