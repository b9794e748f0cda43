package api_test

import (
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

// The document stands in docs/ for those who have no gateway yet.
func TestDocument(t *testing.T) {
	t.Parallel()
	l := newLab(t, "")
	got := l.send(request{method: "GET", path: "/openapi.json"})
	if got.status != 200 || got.header.Get("Content-Type") != "application/json" {
		t.Fatalf("openapi.json: %d %v", got.status, got.header)
	}
	l.document()
	const golden = "../../docs/openapi.json"
	if *update {
		if err := os.WriteFile(golden, []byte(got.text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.text != string(want) {
		t.Errorf("%s is not what the gateway serves; \"go test ./gateway/api -update\" writes it", golden)
	}
}
