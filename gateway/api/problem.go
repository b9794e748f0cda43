package api

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"postern/authstore"
	"postern/authstore/identity"
	"postern/gateway/directory"
)

const problemType = "application/problem+json"

// Problem is an error as RFC 9457 has it. It never holds what was sent.
type Problem struct {
	Title  string  `json:"title" doc:"What the status means" example:"Not Found"`
	Status int     `json:"status" minimum:"400" maximum:"599" example:"404"`
	Detail string  `json:"detail" doc:"What is wrong, in words for people" example:"there is no account with that address"`
	Faults []Fault `json:"faults,omitempty" doc:"What does not fit this document, at most 20"`
	// Password is the app password that the same Idempotency-Key made before.
	Password int64 `json:"app_password,omitempty" doc:"The app password that the same Idempotency-Key made before"`

	header http.Header
}

// Fault is one thing in a request that does not fit the document.
type Fault struct {
	Location string `json:"location" example:"body.address"`
	Message  string `json:"message" example:"expected string"`
}

func (p *Problem) Error() string           { return p.Detail }
func (p *Problem) GetStatus() int          { return p.Status }
func (p *Problem) GetHeaders() http.Header { return p.header }

// ContentType is asked by huma.
func (p *Problem) ContentType(string) string { return problemType }

func problem(status int, detail string) *Problem {
	return &Problem{Title: http.StatusText(status), Status: status, Detail: detail}
}

const (
	maxFaults   = 20
	maxLocation = 200 // bytes: a field's name may be as long as the body
)

// newProblem makes an error of huma's a problem. huma gives what was sent with it, which may be a secret: it is left out.
func newProblem(status int, detail string, errs ...error) huma.StatusError {
	switch {
	case status == http.StatusInternalServerError: // huma's, where a body ends too early or is too long
		status, detail, errs = readFault(errs)
	case status == http.StatusUnprocessableEntity || status == http.StatusBadRequest && len(errs) > 0:
		detail = "the request does not fit the document at " + documentPath
	}
	p := problem(status, detail)
	for _, err := range errs[:min(len(errs), maxFaults)] {
		if d, ok := err.(huma.ErrorDetailer); ok {
			at := d.ErrorDetail()
			p.Faults = append(p.Faults, Fault{cut(at.Location), faultWords(at.Message)})
		}
	}
	return p
}

func readFault(errs []error) (int, string, []error) {
	for _, err := range errs {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return http.StatusRequestEntityTooLarge, "the body is too large", nil
		}
	}
	return http.StatusBadRequest, "the body could not be read to its end", nil
}

// faultWords keeps Go's own words out of an answer.
func faultWords(message string) string {
	if strings.HasPrefix(message, "json: ") || strings.Contains(message, "invalid character") || strings.Contains(message, "unexpected end of JSON") {
		return "not the JSON that is expected here"
	}
	return cut(message)
}

func cut(s string) string { return strings.ToValidUTF8(s[:min(len(s), maxLocation)], "") }

// shown is what a client wrote, short and quoted.
func shown(s string) string { return strconv.Quote(cut(s)) }

// problems documents the errors of an operation.
func (s *Server) problems(a huma.API, more []int) map[string]*huma.Response {
	schema := a.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "")
	all := map[string]*huma.Response{"default": {Description: "Another error", Content: map[string]*huma.MediaType{problemType: {Schema: schema}}}}
	for _, status := range append([]int{http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests}, more...) {
		all[strconv.Itoa(status)] = &huma.Response{Description: http.StatusText(status), Content: map[string]*huma.MediaType{problemType: {Schema: schema}}}
	}
	return all
}

// conflicts are the errors that another state of things would not have given; what they say is for everybody.
var conflicts = []error{authstore.ErrNameTaken, authstore.ErrTooMany, authstore.ErrNotActive, identity.ErrTied, identity.ErrVouched, directory.ErrBusy}

// problem puts an error of an operation into an answer. What nobody has words for is for the log alone.
func (s *Server) problem(ctx context.Context, err error) error {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	if made, ok := errors.AsType[*authstore.ErrMade](err); ok {
		p := problem(http.StatusConflict, made.Error()+"; its secret was told then, and is not told again")
		p.Password = int64(made.Password)
		return p
	}
	if e, ok := errors.AsType[*authstore.Unfit](err); ok {
		return problem(http.StatusUnprocessableEntity, e.Error())
	}
	if e, ok := errors.AsType[*authstore.PolicyError](err); ok {
		return problem(http.StatusUnprocessableEntity, e.Error())
	}
	for _, told := range conflicts {
		if errors.Is(err, told) {
			return problem(http.StatusConflict, err.Error())
		}
	}
	c := callOf(ctx)
	switch {
	case errors.Is(err, authstore.ErrNotFound): // removed at this moment
		return problem(http.StatusNotFound, "it is not there any more")
	case errors.Is(err, authstore.ErrUncertain):
		s.o.Log.Error("api", "proto", Protocol, "operation", c.operation, "err", err)
		return problem(http.StatusInternalServerError, authstore.ErrUncertain.Error()+"; look before you ask again")
	case ctx.Err() != nil:
		return problem(http.StatusServiceUnavailable, "there was no answer in time; look before you ask again")
	}
	number := rand.Text()[:8]
	s.o.Log.Error("api", "proto", Protocol, "operation", c.operation, "number", number, "err", err)
	return broken(number)
}

func broken(number string) *Problem {
	return problem(http.StatusInternalServerError, "something is wrong here; the log has more under the number "+number)
}

func noAccount() *Problem {
	return problem(http.StatusNotFound, "there is no account with that address")
}
func noPassword() *Problem {
	return problem(http.StatusNotFound, "there is no app password with that number")
}
func noPortal() *Problem {
	return problem(http.StatusConflict, "there is no portal here")
}
