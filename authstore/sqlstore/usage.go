package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"net/netip"
	"slices"
	"time"

	"postern/authstore"
)

const (
	// maxUsage bounds the clients kept for an app password, of those accepted and of those refused: whoever holds it may give himself
	// any name, and phones change networks.
	maxUsage = 100
	// maxUsageDay bounds them for one day; what others do then is added up by protocol.
	maxUsageDay = 100
	// usageDays is how many days of them are kept.
	usageDays = 90
	// maxNewUses bounds the events of new uses of one app password in a day.
	maxNewUses = 50
)

// everybody stands in usage_day for the clients that are too many to tell apart.
var everybody = netip.PrefixFrom(netip.IPv4Unspecified(), 0)

const day = 24 * time.Hour

// dayOf counts the days of UTC since 1970.
func dayOf(t time.Time) int64 { return t.Unix() / int64(day/time.Second) }

// Used writes a batch of usage. Rekeys in it are changes of their own, for caches hold the digest.
func (s *Store) Used(ctx context.Context, batch []authstore.Usage) error {
	if err := s.writeUsage(ctx, batch); err != nil {
		return plain(err)
	}
	for _, u := range batch {
		if u.Rekey == nil {
			continue
		}
		if _, err := s.inChange(ctx, false, authstore.Actor{Name: "gateway"}, "password.rekeyed", func(c *change) error {
			c.Account, c.event.Password = u.Account, u.Password
			err := affected(c.ExecContext(ctx, "UPDATE app_password SET key = $3, digest = $4 WHERE id = $1 AND key = $2 AND revoked IS NULL",
				int64(u.Password), u.Rekey.From, u.Rekey.To, u.Rekey.Digest[:]))
			if errors.Is(err, authstore.ErrNotFound) { // moved already, or revoked meanwhile
				return errNothingToDo
			}
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) writeUsage(ctx context.Context, batch []authstore.Usage) error {
	batch = slices.Clone(batch)
	slices.SortFunc(batch, func(a, b authstore.Usage) int { return a.First.Compare(b.First) }) // the first use is the first
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for _, u := range batch {
		err := tx.QueryRowContext(ctx, "SELECT account FROM app_password WHERE id = $1", int64(u.Password)).Scan(&u.Account)
		if errors.Is(err, sql.ErrNoRows) { // gone with its account
			continue
		}
		if err != nil {
			return err
		}
		for _, write := range []func(context.Context, *sql.Tx, authstore.Usage) error{s.judgeUse, writeClient, writeDay} {
			if err := write(ctx, tx, u); err != nil {
				return err
			}
		}
	}
	return tx.Commit()
}

func writeClient(ctx context.Context, tx *sql.Tx, u authstore.Usage) error {
	if _, err := tx.ExecContext(ctx, `INSERT INTO usage (app_password, protocol, app, network, first, last, count, failures, operator)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (app_password, protocol, app, network) DO UPDATE SET
  first = CASE WHEN usage.count = 0 AND excluded.count > 0 THEN excluded.first ELSE usage.first END,
  last = CASE WHEN usage.count = 0 AND excluded.count > 0 THEN excluded.last
              WHEN usage.count > 0 AND excluded.count = 0 THEN usage.last
              WHEN excluded.last > usage.last THEN excluded.last ELSE usage.last END,
  count = usage.count + excluded.count, failures = usage.failures + excluded.failures, operator = excluded.operator`,
		int64(u.Password), u.Protocol, u.App, u.Network.String(), u.First.Unix(), u.Last.Unix(), u.Count, u.Failures, u.Operator); err != nil {
		return err
	}
	// what was refused does not push out when it was last used
	_, err := tx.ExecContext(ctx, `DELETE FROM usage WHERE app_password = $1 AND (count = 0) = ($3 = 0)
AND (last, protocol, app, network) < (SELECT last, protocol, app, network FROM usage
  WHERE app_password = $1 AND (count = 0) = ($3 = 0) ORDER BY last DESC, protocol DESC, app DESC, network DESC LIMIT 1 OFFSET $2)`,
		int64(u.Password), maxUsage-1, u.Count)
	return err
}

// writeDay counts for the day on which it ended what was gathered in a few seconds.
func writeDay(ctx context.Context, tx *sql.Tx, u authstore.Usage) error {
	today := dayOf(u.Last)
	var room bool
	if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM usage_day WHERE app_password = $1 AND day = $2 AND protocol = $3 AND app = $4 AND network = $5)
OR (SELECT count(*) FROM usage_day WHERE app_password = $1 AND day = $2) < $6`,
		int64(u.Password), today, u.Protocol, u.App, u.Network.String(), maxUsageDay).Scan(&room); err != nil {
		return err
	}
	if !room {
		u.App, u.Network = "", everybody
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO usage_day (app_password, day, protocol, app, network, count, failures) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (app_password, day, protocol, app, network) DO UPDATE SET count = usage_day.count + excluded.count, failures = usage_day.failures + excluded.failures`,
		int64(u.Password), today, u.Protocol, u.App, u.Network.String(), u.Count, u.Failures)
	return err
}

// judgeUse writes an event where an accepted use is news. Nearly all are not, and cost one look at the row that they have already.
func (s *Store) judgeUse(ctx context.Context, tx *sql.Tx, u authstore.Usage) error {
	if u.Count == 0 {
		return nil
	}
	var known bool
	if err := tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM usage WHERE app_password = $1 AND protocol = $2 AND app = $3 AND network = $4 AND count > 0)",
		int64(u.Password), u.Protocol, u.App, u.Network.String()).Scan(&known); err != nil || known {
		return err
	}
	before, err := usageOf(ctx, tx, "app_password = $1 AND count > 0", u.Password)
	if err != nil {
		return err
	}
	kind, n := authstore.JudgeUse(before, u)
	if kind == "" {
		return nil
	}
	var enough bool // found from the newest on, or what somebody has done for a year is read each time
	if err := tx.QueryRowContext(ctx, `SELECT COALESCE((SELECT at FROM event WHERE app_password = $1 AND kind = $2
ORDER BY id DESC LIMIT 1 OFFSET $3), 0) > $4`, int64(u.Password), kind, maxNewUses-1, s.now().Add(-day).Unix()).Scan(&enough); err != nil || enough {
		return err
	}
	return s.appendEvent(ctx, tx, authstore.Event{At: u.First, Account: u.Account, Password: u.Password, Kind: kind,
		Actor: authstore.Actor{Name: "gateway"}, Detail: n.String()})
}

// Usage lists the clients of an app password, the latest first.
func (s *Store) Usage(ctx context.Context, id authstore.PasswordID) ([]authstore.Usage, error) {
	return usageOf(ctx, s.read, "app_password = $1", id)
}

func usageOf(ctx context.Context, q querier, where string, id authstore.PasswordID) ([]authstore.Usage, error) {
	return collect(ctx, q, func(rows *sql.Rows, u *authstore.Usage) error {
		var network string
		var first, last sql.NullInt64
		err := rows.Scan(&u.Password, &u.Account, &u.Protocol, &u.App, &network, &u.Operator, &first, &last, &u.Count, &u.Failures)
		if err == nil {
			u.Network, err = netip.ParsePrefix(network)
		}
		u.First, u.Last = fromSeconds(first), fromSeconds(last)
		return err
	}, `SELECT app_password, (SELECT account FROM app_password WHERE id = usage.app_password),
  protocol, app, network, operator, first, last, count, failures FROM usage WHERE `+where+" ORDER BY last DESC, protocol, app, network", int64(id))
}

// UsageDays lists what the clients of an app password did each day since a time, the latest day first, and the busiest client of a day.
func (s *Store) UsageDays(ctx context.Context, id authstore.PasswordID, since time.Time) ([]authstore.UsageDay, error) {
	return collect(ctx, s.read, func(rows *sql.Rows, u *authstore.UsageDay) error {
		var network string
		var number int64
		err := rows.Scan(&number, &u.Protocol, &u.App, &network, &u.Count, &u.Failures)
		if err == nil {
			u.Network, err = netip.ParsePrefix(network)
		}
		u.Day = time.Unix(number*int64(day/time.Second), 0).UTC()
		return err
	}, `SELECT day, protocol, app, network, count, failures FROM usage_day
WHERE app_password = $1 AND day >= $2 ORDER BY day DESC, count DESC, failures DESC, protocol, app, network`, int64(id), dayOf(since))
}
