package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
)

// The outbox of alerts. What changes a subject's state enters the new state in its transaction; one instance sends it. A state
// that is there already is not entered again, so a change is told once.

// alertFresh is how long an alert may wait to be sent. One that nobody has sent by then is no news.
const alertFresh = time.Hour

// Alert is a change of state that MEMHOOK_ALERT_URL is told.
type Alert struct {
	Subject string // what has the state, such as endpoint:<id>
	State   string
	Summary string // a sentence for people
	Link    string // the path of the dashboard's page, or empty
	At      time.Time
	Good    bool // of an alert that is raised: the state is entered only after another
}

// RaiseAlert enters an alert, unless its subject has that state already.
func (s *Store) RaiseAlert(ctx context.Context, a Alert) error { return raiseAlert(ctx, s.pool, a) }

func raiseAlert(ctx context.Context, q querier, a Alert) error {
	_, err := q.Exec(ctx, `
		insert into alerts as a (subject, state, summary, link, at)
		select $1, $2, $3, $4, $5
		where not $6 or exists (select from alerts where subject = $1)
		on conflict (subject) do update
		set state = excluded.state, summary = excluded.summary, link = excluded.link, at = excluded.at, sent = false
		where a.state <> excluded.state`, a.Subject, a.State, a.Summary, a.Link, a.At, a.Good)
	return wrapped("raise alert", err)
}

// alertLock is the advisory lock of the instance that sends alerts.
const alertLock = 0x6d656d686f6f6b01

// SendAlert calls send with the oldest alert that was not sent, and marks it as sent if send returns nil. It reports whether
// there was one. Alerts older than an hour are passed over. One instance has an alert at a time.
func (s *Store) SendAlert(ctx context.Context, send func(Alert) error) (found bool, err error) {
	err = s.tx(ctx, "send alert", func(tx pgx.Tx) error {
		// While send is under way the transaction locks no row and has no transaction id, which would hold back the feed (see
		// feedEnd).
		a, err := one[Alert](ctx, tx, `
			select subject, state, summary, link, at
			from (select pg_try_advisory_xact_lock($2) as alone) l
			cross join alerts
			where l.alone and not sent and at > $1
			order by at
			limit 1`, s.now().Add(-alertFresh), alertLock)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		found = true
		if err := send(a); err != nil {
			return err
		}
		// Unless the subject has another state by now.
		_, err = tx.Exec(ctx, `update alerts set sent = true where subject = $1 and state = $2 and at = $3`, a.Subject, a.State, a.At)
		return err
	})
	return found, err
}
