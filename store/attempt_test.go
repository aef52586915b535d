package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/memhook/memhook/store"
)

const (
	firstJobs  = `select count(*) from river_job where kind = 'deliver_first'`
	singleJobs = `select count(*) from river_job where kind = 'deliver'`
)

// announced gives a bundle with one event for so many subscribers, and its deliveries.
func announced(t *testing.T, subscribers int) (*bundle, []store.Delivery) {
	t.Helper()
	b := newBundle(t)
	for i := range subscribers {
		b.register("task", fmt.Sprintf("https://a.example/%d", i))
	}
	b.ready(b.register("task", "https://a.example/0").Task.ID, "PI-1")
	list, err := b.Deliveries(t.Context(), store.DeliveryFilter{Scope: store.OfApp(b.app.ID), Status: store.DeliveryPending}, store.Page{Limit: 500})
	if err != nil || len(list) != subscribers {
		t.Fatalf("%d deliveries are listed as pending, want %d: %v", len(list), subscribers, err)
	}
	return b, list
}

func TestFirstAttemptsShareJobs(t *testing.T) {
	t.Parallel()
	b, list := announced(t, 25)
	if n := b.count(firstJobs); n != 3 {
		t.Errorf("%d jobs for 25 first attempts, want 3", n)
	}
	next := time.Now().Add(time.Minute)
	for _, r := range []store.AttemptResult{
		{DeliveryID: list[0].ID, EndpointID: list[0].EndpointID, At: time.Now(), SharedJob: true, Delivered: true, Healthy: true},
		{DeliveryID: list[1].ID, EndpointID: list[1].EndpointID, At: time.Now(), SharedJob: true},                       // used up
		{DeliveryID: list[2].ID, EndpointID: list[2].EndpointID, At: time.Now(), SharedJob: true, NextAttemptAt: &next}, // to be tried again
		{DeliveryID: list[3].ID, EndpointID: list[3].EndpointID, At: time.Now(), NextAttemptAt: &next},                  // by a job of its own, which snoozes
	} {
		if err := b.RecordAttempt(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if n := b.count(singleJobs+` and args ->> 'delivery_id' = $1`, list[2].ID.String()); n != 1 || b.count(singleJobs) != 1 {
		t.Errorf("%d jobs for the attempt after the failed one, %d in all", n, b.count(singleJobs))
	}
}

// Where the next attempt's job cannot be stored, neither is the attempt: the first one will be made again.
func TestAFailedFirstAttemptExistsExactlyIfItsNextJobDoes(t *testing.T) {
	t.Parallel()
	b, list := announced(t, 1)
	next := time.Now().Add(time.Minute)
	if _, err := b.pool.Exec(t.Context(), `alter table river_job rename to away`); err != nil {
		t.Fatal(err)
	}
	if err := b.RecordAttempt(t.Context(), store.AttemptResult{DeliveryID: list[0].ID, EndpointID: list[0].EndpointID, At: time.Now(), SharedJob: true, NextAttemptAt: &next}); err == nil {
		t.Error("recorded without a job for the next attempt")
	}
	if n := b.count(`select count(*) from attempts`) + b.count(`select attempt_count from deliveries`); n != 0 {
		t.Errorf("an attempt is left behind")
	}
}

// Jobs of first attempts that were cancelled by hand are made good for those that have had none.
func TestOrphansOfFirstAttemptsAreAdopted(t *testing.T) {
	t.Parallel()
	b, list := announced(t, 12)
	next := time.Now().Add(time.Minute)
	for i, r := range []store.AttemptResult{{Delivered: true, Healthy: true}, {NextAttemptAt: &next}} {
		r.DeliveryID, r.EndpointID, r.At, r.SharedJob = list[i].ID, list[i].EndpointID, time.Now(), true
		if err := b.RecordAttempt(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.pool.Exec(t.Context(), `update river_job set state = 'cancelled', finalized_at = now() where kind = 'deliver_first'`); err != nil {
		t.Fatal(err)
	}
	n, err := b.adopted(10 * time.Second)
	if err != nil || n != 10 || b.count(singleJobs) != 11 {
		t.Errorf("%d adopted, %d jobs, %v; want 10 and, with that of the failed one, 11", n, b.count(singleJobs), err)
	}
	if n, err = b.AdoptOrphans(t.Context()); err != nil || n != 0 {
		t.Errorf("%d adopted again, %v", n, err)
	}
}
