package store

import (
	"fmt"
	"strings"
)

// A statement that changes many rows gets them as arrays, one a column. A column names its SQL beside the value in
// Go, so that no list of names must match a list of values by position.

// column is one column of rows R that go to a statement.
type column[R any] struct {
	name, sqlType string
	array         func([]R) any
}

// col names a column. sqlType is the SQL type of its values; jsonb values are JSON text in Go.
func col[R, V any](name, sqlType string, value func(R) V) column[R] {
	return column[R]{name, sqlType, func(rows []R) any {
		values := make([]V, len(rows))
		for i, r := range rows {
			values[i] = value(r)
		}
		return values
	}}
}

// unnest returns rows as an SQL table named alias, and the statement's arguments: others are $1, $2 and so on, and the
// columns' arrays come after them.
func unnest[R any](alias string, rows []R, columns []column[R], others ...any) (table string, args []any) {
	names, arrays := make([]string, len(columns)), make([]string, len(columns))
	selected, hasJSON := make([]string, len(columns)), false
	for i, c := range columns {
		arrayType := c.sqlType
		names[i], selected[i] = c.name, c.name
		if c.sqlType == "jsonb" { // the driver would encode text as a JSON string
			arrayType, selected[i], hasJSON = "text", c.name+"::jsonb as "+c.name, true
		}
		others = append(others, c.array(rows))
		arrays[i] = fmt.Sprintf("$%d::%s[]", len(others), arrayType)
	}
	table = fmt.Sprintf("unnest(%s) as %s (%s)", strings.Join(arrays, ", "), alias, strings.Join(names, ", "))
	if hasJSON {
		table = fmt.Sprintf("(select %s from %s) as %s", strings.Join(selected, ", "), table, alias)
	}
	return table, others
}

// insertInto returns the statement that inserts rows into a table, to which `on conflict` and `returning` can be added.
func insertInto[R any](table string, rows []R, columns []column[R]) (sql string, args []any) {
	from, args := unnest("n", rows, columns)
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.name
	}
	list := strings.Join(names, ", ")
	return fmt.Sprintf("insert into %s (%s) select %s from %s", table, list, list, from), args
}
