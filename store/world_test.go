package store_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/store/storetest"
)

// world is a store with something of everything in it, whose statements can fail.
type world struct {
	*bundle
	failing *failing
	plain   *pgxpool.Pool // whose statements do not fail

	waiting, ready, done      *store.Task
	endpoint, parking, listen store.Endpoint // healthy; with parked deliveries; asking for endpoints' events
	delivered, pending        uuid.UUID      // deliveries
	failed                    uuid.UUID
	key                       store.APIKey
	plainKey                  string
	shift                     *store.Lease
	instance                  store.Instance
	spare                     store.Account // that no app uses
	idleApp                   store.App     // on an account with nothing to poll
	uploading                 *store.UploadLease
	sending, queued           store.Upload // taken by that lease; and another
}

func newWorld(t *testing.T) *world {
	t.Helper()
	url := storetest.URL(t)
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{failing: &failing{}, plain: storetest.Pool(t, url)}
	cfg.ConnConfig.Tracer = tracer(w.failing.start)
	s := storetest.Over(t, cfg, store.Config{Encode: encode, Settle: time.Minute})
	w.bundle = &bundle{Store: s, t: t, pool: s.Pool()}
	w.fill()
	return w
}

// fill puts something of everything into the database.
func (w *world) fill() {
	w.t.Helper()
	ctx := w.t.Context()
	must := func(err error) {
		w.t.Helper()
		if err != nil {
			w.t.Fatal(err)
		}
	}
	var err error
	must(w.CheckKeys(ctx))
	w.account, err = w.CreateAccount(ctx, store.NewAccount{Name: "account", APIKey: "sk-mavi-1", RequestsPerSecond: 1000})
	must(err)
	w.spare, err = w.CreateAccount(ctx, store.NewAccount{Name: "spare", APIKey: "sk-mavi-2", RequestsPerSecond: 1})
	must(err)
	w.app, err = w.CreateApp(ctx, "app", w.account.ID)
	must(err)
	idle, err := w.CreateAccount(ctx, store.NewAccount{Name: "idle", APIKey: "sk-mavi-3", RequestsPerSecond: 1})
	must(err)
	w.idleApp, err = w.CreateApp(ctx, "idle", idle.ID)
	must(err)
	w.key, w.plainKey, err = w.CreateKey(ctx, w.app.ID, "key", nil)
	must(err)
	w.listen, err = w.CreateEndpoint(ctx, w.app.ID, store.EndpointSettings{URL: new("https://listen.example/"), EventTypes: &[]string{store.EventEndpointDisabled, store.EventEndpointRecovered}})
	must(err)
	w.done = w.register("done", "https://a.example/").Task
	w.ready1(w.done)
	w.ready = w.register("ready", "https://a.example/").Task
	w.ready1(w.ready)
	w.register("parked", "https://parking.example/")
	w.waiting = w.register("waiting", "https://a.example/").Task
	deliveries, err := w.Deliveries(ctx, store.DeliveryFilter{Scope: store.OfApp(w.app.ID)}, store.Page{Limit: 10})
	must(err)
	w.delivered, w.pending = deliveries[1].ID, deliveries[0].ID
	for _, ep := range []struct {
		url  string
		into *store.Endpoint
	}{{"https://a.example/", &w.endpoint}, {"https://parking.example/", &w.parking}} {
		all, err := w.Endpoints(ctx, store.EndpointFilter{Scope: store.OfApp(w.app.ID)}, store.Page{Limit: 10})
		must(err)
		for _, one := range all {
			if one.URL == ep.url {
				*ep.into = one
			}
		}
	}
	must(w.RecordAttempt(ctx, store.AttemptResult{DeliveryID: w.delivered, EndpointID: w.endpoint.ID, At: time.Now(), Delivered: true, Healthy: true}))
	_, err = w.UpdateEndpoint(ctx, store.OfApp(w.app.ID), w.parking.ID, store.EndpointSettings{RateLimit: new(100.0), Headers: map[string]*string{"X-A": new("b")}})
	must(err)
	parked := w.register("parked 2", "https://parking.example/").Task
	w.ready1(parked)
	failed := w.register("failed", "https://parking.example/").Task
	w.ready1(failed)
	all, err := w.Deliveries(ctx, store.DeliveryFilter{Scope: store.Everything(), EndpointID: w.parking.ID}, store.Page{Limit: 10})
	must(err)
	w.failed = all[0].ID
	must(w.RecordAttempt(ctx, store.AttemptResult{DeliveryID: w.failed, EndpointID: w.parking.ID, At: time.Now()}))
	w.shift, err = w.AcquireLease(ctx, w.account.ID)
	must(err)
	w.instance = store.Instance{ID: uuid.Must(uuid.NewV7()), Name: "instance", Version: "1", StartedAt: time.Now()}
	_, err = w.RegisterInstance(ctx, w.instance)
	must(err)
	_, err = w.plain.Exec(ctx, `update river_job set state = 'running', attempted_by = array[$1::text] where kind like 'deliver%'`, w.instance.ID.String())
	must(err)
	w.sending, w.queued = w.upload("https://videos.example/1"), w.upload("https://videos.example/2")
	w.uploading = w.uploadLease()
	w.take(w.uploading)
	must(w.FlushActivity(ctx))
}

func (w *world) ready1(t *store.Task) { w.bundle.ready(t.ID, "PI-"+t.UpstreamID) }

// state is a digest of every row of every table.
func (w *world) state() string {
	w.t.Helper()
	rows, err := w.plain.Query(context.Background(), `select relname::text from pg_class where relkind = 'r' and relnamespace = current_schema()::regnamespace order by 1`)
	if err != nil {
		w.t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(tables) == 0 {
		w.t.Fatal(tables, err)
	}
	var out strings.Builder
	for _, name := range tables {
		var digest string
		if err := w.plain.QueryRow(context.Background(), `select coalesce(md5(string_agg(t::text, ' ' order by t::text)), '') from `+name+` t`).Scan(&digest); err != nil {
			w.t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s %s\n", name, digest)
	}
	return out.String()
}

// How an operation may leave the database when one of its statements has failed.
const (
	whole = iota // as it was
	steps        // some of its steps done: it is called again and goes on
)
