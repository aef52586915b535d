package store

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	// activityKept is for how long minutes are kept, hoursKept for how long hours and the attempts by endpoint are.
	activityKept, hoursKept = 25 * time.Hour, 8 * 24 * time.Hour
	// flushInterval is how often an instance adds what it has counted to the minutes of all. Every flushEndpoints-th time it adds
	// the attempts by endpoint, which are as many rows as there are busy endpoints.
	flushInterval, flushEndpoints = 3 * time.Second, 5
)

// Minute is what happened in a minute or an hour, on all instances together.
type Minute struct {
	Minute         time.Time // its beginning
	Registrations  int64
	Polls          int64
	Deliveries     int64 // delivered
	FailedAttempts int64
	DetectionLag   Histogram // from ready, as far as can be known, to detected
	Latency        Histogram // from event to delivered
}

// Totals sums up minutes.
func Totals(minutes []Minute) Minute {
	sum := Minute{DetectionLag: newHistogram(), Latency: newHistogram()}
	for _, m := range minutes {
		sum.Registrations += m.Registrations
		sum.Polls += m.Polls
		sum.Deliveries += m.Deliveries
		sum.FailedAttempts += m.FailedAttempts
		sum.DetectionLag.Add(m.DetectionLag)
		sum.Latency.Add(m.Latency)
	}
	return sum
}

// activity gathers an instance's counts until they are flushed.
type activity struct {
	mu        sync.Mutex
	byMinute  map[time.Time]*Minute
	endpoints map[endpointSlot]*EndpointAttempts
}

// count changes the minute of a time.
func (a *activity) count(at time.Time, change func(*Minute)) {
	minute := at.UTC().Truncate(time.Minute)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.byMinute == nil {
		a.byMinute = make(map[time.Time]*Minute)
	}
	m := a.byMinute[minute]
	if m == nil {
		m = &Minute{Minute: minute, DetectionLag: newHistogram(), Latency: newHistogram()}
		a.byMinute[minute] = m
	}
	change(m)
}

func (a *activity) take() map[time.Time]*Minute {
	a.mu.Lock()
	defer a.mu.Unlock()
	taken := a.byMinute
	a.byMinute = nil
	return taken
}

// KeepActivity adds what this store counts to the minutes of all instances every few seconds until ctx
// ends, and once more then. What a crash loses is a few seconds of statistics.
func (s *Store) KeepActivity(ctx context.Context, failed func(error)) {
	ticker := time.NewTicker(flushInterval)
	defer ticker.Stop()
	for n := 1; ; n++ {
		select {
		case <-ticker.C:
			flush := s.flushMinutes
			if n%flushEndpoints == 0 {
				flush = s.FlushActivity
			}
			if err := flush(ctx); err != nil && ctx.Err() == nil {
				failed(err)
			}
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			_ = s.FlushActivity(last) // statistics only
			return
		}
	}
}

// FlushActivity adds what this store has counted to the minutes and hours of all instances.
func (s *Store) FlushActivity(ctx context.Context) error {
	if err := s.flushMinutes(ctx); err != nil {
		return err
	}
	return s.flushEndpoints(ctx)
}

func (s *Store) flushMinutes(ctx context.Context) error {
	for _, m := range s.activity.take() {
		for table, start := range map[string]time.Time{"activity": m.Minute, "activity_hours": m.Minute.Truncate(time.Hour)} {
			_, err := s.pool.Exec(ctx, `
				insert into `+table+` as a (minute, registrations, polls, deliveries, failed_attempts, detection_lag, latency)
				values ($1, $2, $3, $4, $5, $6, $7)
				on conflict (minute) do update
				set registrations = a.registrations + excluded.registrations, polls = a.polls + excluded.polls,
					deliveries = a.deliveries + excluded.deliveries, failed_attempts = a.failed_attempts + excluded.failed_attempts,
					detection_lag = array(select x + y from unnest(a.detection_lag, excluded.detection_lag) with ordinality as u (x, y, k) order by k),
					latency = array(select x + y from unnest(a.latency, excluded.latency) with ordinality as u (x, y, k) order by k)`,
				start, m.Registrations, m.Polls, m.Deliveries, m.FailedAttempts, m.DetectionLag, m.Latency)
			if err != nil {
				return fmt.Errorf("keep activity: %w", err)
			}
		}
	}
	return nil
}

// Activity reads the minutes since a time, oldest first, or the hours if it is more than a day ago. Those in which nothing
// happened are missing.
func (s *Store) Activity(ctx context.Context, since time.Time) ([]Minute, error) {
	table := "activity"
	if s.now().Sub(since) > activityKept {
		table = "activity_hours"
	}
	list, err := many[Minute](ctx, s.pool, `
		select minute, registrations, polls, deliveries, failed_attempts, detection_lag, latency
		from `+table+` where minute >= $1 order by minute`, since)
	return list, wrapped("read activity", err)
}
