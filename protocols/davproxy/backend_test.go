package davproxy

import (
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// backendFunc stands for a backend and the transport to it.
type backendFunc func(*http.Request) (*http.Response, error)

func (f backendFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// slow yields a byte now and then.
type slow struct {
	pauses []time.Duration
	until  <-chan struct{} // a request's end, that ends a pause
}

func (s *slow) Read(p []byte) (int, error) {
	if len(s.pauses) == 0 {
		return 0, io.EOF
	}
	select {
	case <-time.After(s.pauses[0]):
	case <-s.until:
		return 0, errors.New("canceled")
	}
	s.pauses = s.pauses[1:]
	return copy(p, "x"), nil
}

// TestOnlyTheBackendsTimeCounts: a backend may do nothing for a minute, the client and whoever reads as long as they like.
func TestOnlyTheBackendsTimeCounts(t *testing.T) {
	const limit, soon, late = time.Minute, 59 * time.Second, 61 * time.Second
	type pauses = []time.Duration
	for name, tt := range map[string]struct {
		client, takes, answers, reader pauses // the client writes, the backend takes and answers, our reader rests
		want                           error
	}{
		"all are quick":               {},
		"the client is slow":          {client: pauses{late, late, late}},
		"each step in time":           {client: pauses{soon, soon}, takes: pauses{soon, soon}, answers: pauses{soon, soon, soon, soon}},
		"the reader is slow":          {answers: pauses{0, soon, soon}, reader: pauses{late, late}},
		"it does not take a body":     {client: pauses{0, 0}, takes: pauses{late}, want: errStalled},
		"it stops to take it":         {client: pauses{0, 0}, takes: pauses{soon, late}, want: errStalled},
		"it does not answer":          {answers: pauses{late}, want: errStalled},
		"it stops in the answer":      {answers: pauses{0, soon, late}, want: errStalled},
		"it stops after a slow start": {client: pauses{late}, answers: pauses{soon, late}, want: errStalled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				backend := backendFunc(func(r *http.Request) (*http.Response, error) {
					pause := func(left *pauses) error {
						if len(*left) == 0 {
							return nil
						}
						_, err := (&slow{(*left)[:1], r.Context().Done()}).Read(make([]byte, 1))
						*left = (*left)[1:]
						return err
					}
					for {
						if err := pause(&tt.takes); err != nil {
							return nil, err
						}
						if _, err := r.Body.Read(make([]byte, 1)); err == io.EOF {
							break
						}
					}
					if err := pause(&tt.answers); err != nil {
						return nil, err
					}
					return &http.Response{Body: io.NopCloser(&slow{tt.answers, r.Context().Done()})}, nil
				})
				req, err := http.NewRequestWithContext(t.Context(), "PUT", "http://backend/", &slow{pauses: tt.client})
				if err != nil {
					t.Fatal(err)
				}
				resp, err := bounded(backend, req, limit)
				if err == nil {
					defer resp.Body.Close()
				}
				for err == nil {
					if _, err = resp.Body.Read(make([]byte, 1)); err == nil && len(tt.reader) > 0 {
						time.Sleep(tt.reader[0])
						tt.reader = tt.reader[1:]
					}
				}
				if !errors.Is(err, tt.want) && (tt.want != nil || err != io.EOF) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
			})
		})
	}
}
