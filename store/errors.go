package store

import (
	"context"
	"errors"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Errors that callers tell apart with errors.Is.
var (
	ErrNotFound = errors.New("not found")
	ErrConflict = errors.New("conflict")
)

// isUnique reports whether err is the violation of a unique constraint.
func isUnique(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23505"
}

// isData reports whether the database refused a value in a statement rather than the statement.
func isData(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code[:2] == "22" || pg.Code[:2] == "23")
}

// isDenied reports whether the role lacks a right.
func isDenied(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "42501"
}

// isReadOnly reports whether the database refused a write because the session is read-only.
func isReadOnly(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "25006"
}

// IsAway reports whether err means that the database cannot be reached, or takes no writes, now.
func IsAway(err error) bool {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		// Connection exceptions, operator intervention (a shutdown), no connections or disk left, a time-out of the server's.
		return isReadOnly(err) || pg.Code == "25P03" || strings.HasPrefix(pg.Code, "08") || strings.HasPrefix(pg.Code, "57") ||
			strings.HasPrefix(pg.Code, "53")
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	_, ok := errors.AsType[net.Error](err)
	return ok || pgconn.Timeout(err) || errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "unexpected EOF") ||
		strings.Contains(err.Error(), "conn closed")
}

// ignoring returns err, or nil where err is ignored.
func ignoring(err, ignored error) error {
	if errors.Is(err, ignored) {
		return nil
	}
	return err
}
