package store

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// sealedColumns are all columns that hold sealed values, and the place each is sealed for.
var sealedColumns = []struct{ table, column, place string }{
	{"accounts", "api_key", "account.api_key"},
	{"apps", "signing_key", "app.signing_key"},
	{"endpoints", "secret", "endpoint.secret"},
	{"endpoints", "old_secret", "endpoint.secret"},
	{"endpoints", "signing_key", "endpoint.signing_key"},
	{"endpoints", "old_signing_key", "endpoint.signing_key"},
	{"endpoints", "headers", "endpoint.headers"},
	{"endpoint_secrets", "secret", "endpoint.secret"},
	{"idempotency_keys", "response", placeResponse},
}

// rekeyBatch is how many values a transaction seals.
const rekeyBatch = 500

// RotateKeys seals with the keyring's first key all that is sealed with another, and calls progress with the numbers of
// values that are done and to do. It can be stopped at any point and run again; instances that
// have both keys go on meanwhile, and what they change stays changed.
func (s *Store) RotateKeys(ctx context.Context, progress func(done, total int)) error {
	ctx = allowing(ctx, longTimeout)
	total := 0
	for _, c := range sealedColumns {
		var n int
		if err := s.pool.QueryRow(ctx, fmt.Sprintf(`
				select count(*) from %s
				where substring(%s from 1 for $1) <> $2`, c.table, c.column), keyIDSize, s.keys.ids[0][:]).Scan(&n); err != nil {
			return fmt.Errorf("count what is sealed with another key: %w", err)
		}
		total += n
	}
	done := 0
	progress(done, total)
	for _, c := range sealedColumns {
		for {
			n, err := s.rekey(ctx, c.table, c.column, c.place)
			if err != nil {
				return fmt.Errorf("seal %s.%s anew: %w", c.table, c.column, err)
			}
			if n == 0 {
				break
			}
			done += n
			progress(done, max(done, total))
		}
	}
	// The mark last: a start with the first key alone must fail until everything can be opened with it.
	_, err := s.pool.Exec(ctx, `update keyring_check set sealed = $1`, s.keys.Seal("keyring.check", []byte(checkSentence)))
	return wrapped("seal the mark anew", err)
}

func (s *Store) rekey(ctx context.Context, table, column, place string) (n int, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		// A column that somebody changes at this moment is waited for and then read as it is.
		rows, err := tx.Query(ctx, fmt.Sprintf(`
			select ctid::text, %[2]s from %[1]s
			where substring(%[2]s from 1 for $1) <> $2
			limit $3
			for no key update`, table, column), keyIDSize, s.keys.ids[0][:], rekeyBatch)
		if err != nil {
			return err
		}
		var ids []string // where the rows are, which stays while they are locked: not all tables have an id
		var values [][]byte
		var id string
		var sealed []byte
		if _, err := pgx.ForEachRow(rows, []any{&id, &sealed}, func() error {
			plain, err := s.open(place, sealed)
			if err != nil {
				return fmt.Errorf("row %s: %w", id, err)
			}
			ids, values = append(ids, id), append(values, bytes.Clone(s.keys.Seal(place, plain)))
			return nil
		}); err != nil {
			return err
		}
		n = len(ids)
		_, err = tx.Exec(ctx, fmt.Sprintf(`
			update %[1]s t set %[2]s = n.value
			from unnest($1::text[], $2::bytea[]) as n (id, value)
			where t.ctid = n.id::tid`, table, column), ids, values)
		return err
	})
	return n, err
}

// open opens a sealed value, also the answer to a request that a version before has stored in clear, for a day.
func (s *Store) open(place string, value []byte) ([]byte, error) {
	plain, err := s.keys.Open(place, value)
	if err != nil && place == placeResponse && json.Valid(value) {
		return bytes.Clone(value), nil
	}
	return plain, err
}
