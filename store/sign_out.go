package store

import (
	"context"
	"time"
)

// EndSession ends a session of the dashboard that would be valid until expires, on all instances.
func (s *Store) EndSession(ctx context.Context, id string, expires time.Time) error {
	_, err := s.pool.Exec(ctx, `insert into ended_sessions (id, expires_at) values ($1, $2) on conflict (id) do nothing`, id, expires)
	return wrapped("end session", err)
}

// SessionEnded reports whether a session of the dashboard was ended.
func (s *Store) SessionEnded(ctx context.Context, id string) (ended bool, err error) {
	err = s.pool.QueryRow(ctx, `select exists (select 1 from ended_sessions where id = $1)`, id).Scan(&ended)
	return ended, wrapped("read ended sessions", err)
}
