package store_test

import (
	"testing"

	"github.com/memhook/memhook/store"
)

// Whatever maintenance has to do is found, each kind by itself, and nothing where there is nothing.
func TestWhatIsDueIsFound(t *testing.T) {
	t.Parallel()
	b, _ := announced(t, 1)
	for _, c := range []struct {
		name, begin, end string
		want             store.Due
	}{
		{"nothing", ``, ``, store.Due{}},
		{"a dead instance", `insert into instances (id, name, version, started_at, beat_at) select gen_random_uuid(), 'dead', '', now(), now() - interval '5100 ms'`,
			`delete from instances`, store.Due{DeadInstances: true}},
		{"a living instance", `insert into instances (id, name, version, started_at, beat_at) select gen_random_uuid(), 'alive', '', now(), now()`,
			`delete from instances`, store.Due{}},
		{"a job of an instance that is not listed", `update river_job set state = 'running', attempted_by = array[gen_random_uuid()::text] where queue = 'deliver_first'`,
			`update river_job set state = 'available'`, store.Due{DeadInstances: true}},
		{"an expired task", `update tasks set polling = true, expires_at = now() - interval '1 h'`, `update tasks set polling = false`, store.Due{ExpiredTasks: true}},
		{"a task that has ended", `update tasks set expires_at = now() - interval '1 h'`, ``, store.Due{}},
		{"parked deliveries", `update endpoints set backlog = true`, ``, store.Due{Backlog: true}},
		{"parked deliveries whose hold is over", `update endpoints set hold_until = now() - interval '1 s'`, ``, store.Due{Backlog: true}},
		{"parked deliveries of an endpoint that is held", `update endpoints set hold_until = now() + interval '1 h'`, ``, store.Due{}},
		{"parked deliveries of a disabled endpoint", `update endpoints set hold_until = null, enabled = false`, `update endpoints set backlog = false`, store.Due{}},
		{"a bulk resend", `insert into resends (id, app_id, action, status, event_type, since, until, matched, after, created_at)
			select gen_random_uuid(), null, 'resend', 'failed', '', now(), now(), 1, gen_random_uuid(), now()`, ``, store.Due{Resends: true}},
		{"a bulk resend that is done", `update resends set finished_at = now()`, ``, store.Due{}},
	} {
		b.exec(c.begin)
		if got, err := b.Due(t.Context()); err != nil || got != c.want {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
		b.exec(c.end)
	}
}
