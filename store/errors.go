package store

import (
	"context"
	"errors"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// IsUnavailable reports whether err means that the database cannot serve requests now, so that the same call may succeed
// later: it cannot be reached, it is starting or stopping, or it is out of connections or disk space.
func IsUnavailable(err error) bool {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		// 08: connection exception, 53: insufficient resources, 57: operator intervention.
		return strings.HasPrefix(pg.Code, "08") || strings.HasPrefix(pg.Code, "53") || strings.HasPrefix(pg.Code, "57")
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	_, ok := errors.AsType[net.Error](err)
	return ok || pgconn.Timeout(err) || errors.Is(err, context.DeadlineExceeded) ||
		strings.Contains(err.Error(), "unexpected EOF") || strings.Contains(err.Error(), "conn closed")
}

// IsUnstorable reports whether err means that a text was refused because PostgreSQL cannot store it: it has a NUL
// character or is not valid UTF-8.
func IsUnstorable(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == "22021"
}

// ConflictReason returns why err is an [ErrConflict], worded for whoever asked for the change.
func ConflictReason(err error) string {
	if _, reason, ok := strings.Cut(err.Error(), ErrConflict.Error()+": "); ok {
		return reason
	}
	return "the current state does not allow this"
}
