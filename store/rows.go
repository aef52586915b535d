package store

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// one reads exactly one row, or returns ErrNotFound.
func one[T any](ctx context.Context, q querier, sql string, args ...any) (T, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		var zero T
		return zero, err
	}
	row, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByNameLax[T])
	if errors.Is(err, pgx.ErrNoRows) {
		return row, ErrNotFound
	}
	return row, err
}

// many reads all rows.
func many[T any](ctx context.Context, q querier, sql string, args ...any) ([]T, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByNameLax[T])
}

// scalars reads all rows, which have one column.
func scalars[T any](ctx context.Context, q querier, sql string, args ...any) ([]T, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[T])
}

// pairs reads all rows, which have two columns: a key and its value.
func pairs[K comparable, V any](ctx context.Context, q querier, sql string, args ...any) (map[K]V, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	found := make(map[K]V)
	var key K
	var value V
	_, err = pgx.ForEachRow(rows, []any{&key, &value}, func() error {
		found[key] = value
		return nil
	})
	return found, err
}

// newID makes a UUIDv7: ids sort by the time of their making.
func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

// idAt returns the least UUIDv7 of a time: 48 bits of Unix milliseconds, then nothing.
func idAt(t time.Time) (id uuid.UUID) {
	binary.BigEndian.PutUint64(id[:8], uint64(t.UnixMilli())<<16)
	return id
}

// nullable returns an id in the form that the driver encodes directly; a pointer it would first encode as text.
func nullable(id *uuid.UUID) (out uuid.NullUUID) {
	if id != nil {
		out = uuid.NullUUID{UUID: *id, Valid: true}
	}
	return out
}

// Page asks for a page of a list, newest first.
type Page struct {
	Before       uuid.UUID // the last id of the page of newer rows; zero for the first page
	After        uuid.UUID // the first id of the page of older rows, to read the page just newer than that
	Since, Until time.Time // of the rows' creation; zero times are no bounds
	Limit        int       // at least 1
}

// pageBytes bounds the texts that a page has of its rows: one that has more ends early, but not before its first row. What
// serves a page has it in memory a few times over.
const pageBytes = 2 << 20

// cutPage returns the SQL that follows a table page and reads its columns: with the rows in the given order, up to the one with
// which their sizes exceed pageBytes. Their column cut says whether there are more. What selects from it may name it e.
func cutPage(columns, size, order string) string {
	return fmt.Sprintf(`, sized as (
			select *, sum(%[2]s) over (order by %[3]s) as bytes, row_number() over (order by %[3]s) as n from page
		)
		select %[1]s, (select count(*) from page) > count(*) over () as cut
		from sized e
		where n = 1 or bytes <= %[4]d`, columns, size, order, pageBytes)
}

// high returns the id that the page's ids are below.
func (p Page) high() uuid.UUID {
	high := uuid.Max
	if p.Before != uuid.Nil {
		high = p.Before
	}
	if end := idAt(p.Until); !p.Until.IsZero() && slices.Compare(end[:], high[:]) < 0 {
		high = end
	}
	return high
}

// low returns the id that the page's ids are above. idAt is the id of no row.
func (p Page) low() uuid.UUID {
	low := p.After
	if start := idAt(p.Since); !p.Since.IsZero() && slices.Compare(start[:], low[:]) > 0 {
		low = start
	}
	return low
}

// order returns the order in which SQL must read the rows for the page to be the one that is asked for.
func (p Page) order() string {
	if p.After != uuid.Nil {
		return "asc"
	}
	return "desc"
}

// newestFirst turns rows that were read in a page's order.
func newestFirst[T any](p Page, rows []T) []T {
	if p.After != uuid.Nil {
		slices.Reverse(rows)
	}
	return rows
}

// byID returns the rows by their ids.
func byID[R any](rows []R, id func(*R) uuid.UUID) map[uuid.UUID]*R {
	found := make(map[uuid.UUID]*R, len(rows))
	for i := range rows {
		found[id(&rows[i])] = &rows[i]
	}
	return found
}

// distribute returns for each list of ids what was found of it, in order; nil stands for an id that was not.
func distribute[R any](lists [][]uuid.UUID, found map[uuid.UUID]*R) [][]*R {
	out := make([][]*R, len(lists))
	for i, ids := range lists {
		for _, id := range ids {
			out[i] = append(out[i], found[id])
		}
	}
	return out
}

// distinct returns the keys of the rows, each value once, in order of its first appearance.
func distinct[R any, K comparable](rows []R, key func(R) K) []K {
	seen := make(map[K]bool, len(rows))
	var out []K
	for _, r := range rows {
		if k := key(r); !seen[k] {
			seen[k] = true
			out = append(out, k)
		}
	}
	return out
}

// rounds splits the indices of rows into groups in which each key stands once: an update changes a row only once a
// statement, so the second row of the same key goes to the next.
func rounds[R any, K comparable](rows []R, key func(R) K) [][]int {
	var out [][]int
	times := make(map[K]int, len(rows))
	for i, r := range rows {
		k := key(r)
		n := times[k]
		times[k] = n + 1
		if n == len(out) {
			out = append(out, nil)
		}
		out[n] = append(out[n], i)
	}
	return out
}

// toJSON returns v as JSON text. v has no channels, functions or cycles, so encoding it cannot fail.
func toJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// jsonOrNull returns *v as JSON text, or nil for null.
func jsonOrNull[T any](v *T) *string {
	if v == nil {
		return nil
	}
	return new(toJSON(v))
}
