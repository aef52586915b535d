package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Errors that callers tell apart with errors.Is.
var (
	ErrNotFound      = errors.New("not found")
	ErrConflict      = errors.New("conflict")
	ErrSearchTimeout = errors.New("the search took longer than " + searchTimeout)
	ErrFull          = fmt.Errorf("the task has %d callback URLs, which is the maximum", maxSubscriptions)
)

// NoHeaderError is returned where a stored header of an endpoint is to be kept and there is none.
type NoHeaderError struct{ Name string }

// Error names the header.
func (e NoHeaderError) Error() string { return "the endpoint has no header " + e.Name }

// wrapped returns err with what was tried, or nil where there is no error.
func wrapped(tried string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", tried, err)
}

// sqlState returns the SQLSTATE of the database's error, or "" where err is none.
func sqlState(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code
	}
	return ""
}

// isUnique reports whether err is the violation of a unique constraint.
func isUnique(err error) bool { return sqlState(err) == "23505" }

// isForeignKey reports whether err is a reference to a row that is gone.
func isForeignKey(err error) bool { return sqlState(err) == "23503" }

// isDeadlock reports whether the database has ended err's transaction because of a deadlock.
func isDeadlock(err error) bool { return sqlState(err) == "40P01" }

// isOneRows reports whether one row of a batch may have caused err, so that the others may go without it: the database or the
// driver refused a value, or the row is in a state that does not allow the change. A lost connection and a time-out are nobody's.
func isOneRows(err error) bool {
	if errors.Is(err, ErrConflict) || errors.Is(err, ErrNotFound) || errors.Is(err, errUpgrading) {
		return true
	}
	state := sqlState(err)
	if state == "" {
		return err != nil && strings.Contains(err.Error(), "failed to encode args") // the driver has no type for it
	}
	// 22: data exception, 23: integrity constraint violation, 54: program limit exceeded, such as by a key that no index takes.
	return strings.HasPrefix(state, "22") || strings.HasPrefix(state, "23") || strings.HasPrefix(state, "54")
}

// isDenied reports whether the role lacks a right.
func isDenied(err error) bool { return sqlState(err) == "42501" }

// isReadOnly reports whether the database refused a write because the session is read-only.
func isReadOnly(err error) bool { return sqlState(err) == "25006" }

// IsUnavailable reports whether err means that the database cannot serve requests now, so that the same call may succeed
// later: it cannot be reached, it takes no writes, it is starting or stopping, or it is out of connections or disk space.
func IsUnavailable(err error) bool {
	if errors.Is(err, errUpgrading) {
		return true
	}
	if state := sqlState(err); state != "" {
		// 25P03: a time-out of the server's. 08: connection exception, 53: insufficient resources, 57: operator intervention.
		return isReadOnly(err) || state == "25P03" ||
			strings.HasPrefix(state, "08") || strings.HasPrefix(state, "53") || strings.HasPrefix(state, "57")
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	_, ok := errors.AsType[net.Error](err)
	return ok || pgconn.Timeout(err) || errors.Is(err, context.DeadlineExceeded) ||
		strings.Contains(err.Error(), "unexpected EOF") || strings.Contains(err.Error(), "conn closed")
}

// ignoring returns err, or nil where err is ignored.
func ignoring(err, ignored error) error {
	if errors.Is(err, ignored) {
		return nil
	}
	return err
}

// IsUnstorable reports whether err means that a text was refused because PostgreSQL cannot store it: it has a NUL
// character or is not valid UTF-8.
func IsUnstorable(err error) bool {
	return sqlState(err) == "22021"
}

// conflict returns an [ErrConflict] with its reason, worded for whoever asked for the change.
func conflict(format string, args ...any) error { return conflictError(fmt.Sprintf(format, args...)) }

type conflictError string

func (e conflictError) Error() string        { return ErrConflict.Error() + ": " + string(e) }
func (e conflictError) Is(target error) bool { return target == ErrConflict } //nolint:errorlint // it is the sentinel itself

// ConflictReason returns why err is an [ErrConflict], worded for whoever asked for the change.
func ConflictReason(err error) string {
	if reason, ok := errors.AsType[conflictError](err); ok {
		return string(reason)
	}
	return "the current state does not allow this"
}

// counted returns a number with its noun.
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
