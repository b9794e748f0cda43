package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"postern/authstore/apitoken"
	"postern/gateway/view"
)

// WantedAccount is an account of an import.
type WantedAccount struct {
	Address     string   `json:"address" minLength:"1" maxLength:"254"`
	Aliases     []string `json:"aliases,omitempty" maxItems:"100" maxLength:"254"`
	BackendName string   `json:"backend_name,omitempty" maxLength:"254"`
	Issuer      string   `json:"issuer,omitempty" maxLength:"2000"`
	Subject     string   `json:"subject,omitempty" maxLength:"255"`
}

func (s *Server) imports(a huma.API) {
	const how = "Accounts that are missing are made, those that are there get what they lack, and nothing is ever taken away: the same list may be sent again. " +
		"Where a line is wrong nothing is done, but with skip_wrong the others are. To change accounts of administrators admins:write is needed as well."
	o := operation{id: "import-accounts", method: http.MethodPost, path: "/import", tag: "accounts", scope: apitoken.AccountsWrite,
		summary: "Add many accounts", more: how, problems: []int{http.StatusUnprocessableEntity}, body: maxImport, time: importTime, large: likeAccounts}
	register(s, a, o, s.importList)
	o.large = func([]byte) error { return nil }
	o.id, o.path, o.summary = "import-csv", "/import/csv", "Add many accounts from a CSV file, as \"postern account import\" reads it"
	register(s, a, o, s.importCSV)
}

type importList struct {
	Body struct {
		Accounts  []WantedAccount `json:"accounts" maxItems:"200000"` // maxWanted
		DryRun    bool            `json:"dry_run,omitempty" doc:"Say what would be done, and do nothing"`
		SkipWrong bool            `json:"skip_wrong,omitempty"`
	}
}

const (
	maxWanted      = 200_000 // accounts of a list
	maxWantedNames = 100     // aliases of one
)

var wantedFields = []json.Token{"address", "aliases", "backend_name", "issuer", "subject"}

// likeAccounts refuses what is no list of accounts, from how it is built alone, at the first thing that is wrong: huma reads a body into maps and
// notes all that is wrong in it, which of a body of nothing but wrong things takes two hundred times its size.
func likeAccounts(text []byte) error {
	var inside []int // how much stands in each list and object that is open: names of fields count as well
	lists := 0
	for d := json.NewDecoder(bytes.NewReader(text)); ; {
		token, err := d.Token()
		if err != nil { // its end, or something for huma to tell of
			return nil
		}
		depth := len(inside)
		if token == json.Delim(']') || token == json.Delim('}') {
			inside = inside[:depth-1]
			continue
		}
		if depth > 0 {
			inside[depth-1]++
		}
		open, opens := token.(json.Delim)
		_, isText := token.(string)
		at := -1 // which account
		if depth > 2 {
			at = inside[1] - 1
		}
		switch {
		case depth == 0, depth == 1 && inside[0] <= 2*3 && !opens: // three fields
		case depth == 1 && open == '[' && lists == 0:
			lists++
		case depth == 2 && open == '{' && inside[1] <= maxWanted:
		case depth == 2 && inside[1] > maxWanted:
			return fmt.Errorf("there are more than %d accounts", maxWanted)
		case depth == 3 && inside[2]%2 == 1 && !slices.Contains(wantedFields, token), depth == 3 && inside[2] > 2*len(wantedFields):
			return fmt.Errorf("accounts[%d] has a field that no account has, or one twice", at)
		case depth == 3 && (isText || open == '['), depth == 4 && isText && inside[3] <= maxWantedNames:
		case depth == 4 && isText:
			return fmt.Errorf("accounts[%d] has more than %d aliases", at, maxWantedNames)
		default:
			return errors.New("it is no list of accounts as the document has it at " + documentPath)
		}
		if opens {
			inside = append(inside, 0)
		}
	}
}

func (s *Server) importList(ctx context.Context, in *importList) (*body[view.Import], error) {
	return s.imported(ctx, Import{List: in.Body.Accounts, DryRun: in.Body.DryRun, SkipWrong: in.Body.SkipWrong})
}

type importCSV struct {
	DryRun    bool   `query:"dry_run" doc:"Say what would be done, and do nothing"`
	SkipWrong bool   `query:"skip_wrong"`
	RawBody   []byte `contentType:"text/csv"`
}

func (s *Server) importCSV(ctx context.Context, in *importCSV) (*body[view.Import], error) {
	if in.RawBody == nil {
		in.RawBody = []byte{}
	}
	return s.imported(ctx, Import{CSV: in.RawBody, DryRun: in.DryRun, SkipWrong: in.SkipWrong})
}

func (s *Server) imported(ctx context.Context, i Import) (*body[view.Import], error) {
	i.Administrators = may(ctx, apitoken.AdminsWrite)
	v, err := s.o.Import(ctx, actor(ctx), i)
	if err != nil {
		return nil, err
	}
	return answer(v), nil
}
