package sqlstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"postern/authstore"
)

// asPart is a text as LIKE finds it, whatever stands in it.
var asPart = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

// choose puts a query into SQL, over first names n and their accounts a. The first argument is taken.
func choose(q authstore.AccountQuery) (where string, args []any) {
	where = "n.ordinal = 0"
	and := func(condition string, arg any) {
		args = append(args, arg)
		where += fmt.Sprintf(" AND "+condition, len(args)+1)
	}
	if q.Text != "" { // all names are looked at once, and not once for each account
		and(`n.account IN (SELECT account FROM login_name WHERE address LIKE $%d ESCAPE '\')`, "%"+asPart.Replace(q.Text)+"%")
	}
	if q.Domain != "" {
		and(`n.address LIKE $%d ESCAPE '\'`, "%@"+asPart.Replace(q.Domain))
	}
	if q.Status != 0 {
		and("n.account IN (SELECT id FROM account WHERE status = $%d)", int(q.Status))
	}
	if q.Open {
		where += " AND EXISTS (SELECT 1 FROM app_password o WHERE o.account = a.id AND o.revoked IS NULL)"
	}
	return where, args
}

// FindAccounts lists the accounts of a query, by their first names in order.
func (s *Store) FindAccounts(ctx context.Context, q authstore.AccountQuery) ([]authstore.Account, error) {
	where, args := choose(q)
	if q.After != "" {
		args = append(args, q.After)
		where += fmt.Sprintf(" AND n.address > $%d", len(args)+1)
	}
	args = append(args, cmp.Or(q.Limit, defaultAccounts))
	// The names decide how many rows there are, so the accounts are chosen first.
	list, err := s.accounts(ctx, s.read, fmt.Sprintf(`a.id IN (SELECT n.account FROM login_name n JOIN account a ON a.id = n.account WHERE %s
ORDER BY n.address LIMIT $%d)`, where, len(args)+1), args...)
	slices.SortFunc(list, func(a, b authstore.Account) int { return strings.Compare(a.Names[0], b.Names[0]) })
	return list, err
}

const defaultAccounts = 100

// CountAccounts counts the accounts of a query and their active app passwords.
func (s *Store) CountAccounts(ctx context.Context, q authstore.AccountQuery) (accounts, passwords int, err error) {
	where, args := choose(q)
	err = s.read.QueryRowContext(ctx, `SELECT count(*), COALESCE(sum((SELECT count(*) FROM app_password p WHERE p.account = a.id AND p.revoked IS NULL
  AND (p.expires IS NULL OR p.expires > $1))), 0)
FROM login_name n JOIN account a ON a.id = n.account WHERE `+where, append([]any{s.now().Unix()}, args...)...).Scan(&accounts, &passwords)
	return accounts, passwords, err
}
