package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// superuser runs fn on a connection of an operator's to PostgreSQL, past the proxy. It may write whatever the defaults say.
func (c *chaos) superuser(fn func(ctx context.Context, conn *pgx.Conn) error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	url := "postgres://memhook@" + c.pgAddr + "/postgres?sslmode=disable&options=-c%20default_transaction_read_only%3Doff"
	conn, err := pgx.Connect(ctx, url)
	if err == nil {
		err = fn(ctx, conn)
		_ = conn.Close(ctx)
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "40P01" {
		c.t.Logf("the operator: %v", err) // with memhook, which would have begun again had it been chosen
	} else if err != nil {
		c.t.Errorf("the operator: %v", err)
	}
}

func (c *chaos) sql(statements ...string) {
	c.superuser(func(ctx context.Context, conn *pgx.Conn) error {
		for _, sql := range statements {
			if _, err := conn.Exec(ctx, sql); err != nil {
				return fmt.Errorf("%s: %w", sql, err)
			}
		}
		return nil
	})
}

// hang stops all processes of PostgreSQL for a time, as a hung machine or disk does: connections stand and say nothing.
func (c *chaos) hang(d time.Duration) {
	if err := c.pg.Freeze(); err != nil {
		c.t.Error(err)
	}
	time.Sleep(d)
	if err := c.pg.Thaw(); err != nil {
		c.t.Error(err)
	}
}

// turnReadOnly lets sessions take no writes for a time: those that are there, or those that begin from now on.
func (c *chaos) turnReadOnly(d time.Duration) string {
	const others = `select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()`
	const reload = `select pg_reload_conf()`
	const setting = `default_transaction_read_only`
	ways := []struct{ what, where, now string }{
		{"the server's", "alter system", reload},
		{"the role's", "alter role memhook", others},
		{"the database's", "alter database postgres", others},
	}
	way := ways[c.rand.IntN(len(ways))]
	c.sql(way.where+` set `+setting+` = on`, way.now)
	time.Sleep(d)
	c.sql(way.where+` reset `+setting, reload)
	return way.what
}

// lockRows holds up the transactions that emit events of one app after another: an operator has the rows of its endpoints
// locked. What others commit meanwhile overtakes them, such as the test events that the next app's operator sends.
func (c *chaos) lockRows() {
	from := time.Now()
	c.superuser(func(ctx context.Context, conn *pgx.Conn) error {
		for _, i := range c.rand.Perm(len(c.apps)) {
			tx, err := conn.Begin(ctx)
			if err != nil {
				return err
			}
			_, err = tx.Exec(ctx, `
				select from memhook.endpoints
				where app_id = (select id from memhook.apps where name = $1)
				order by id
				for update`, c.apps[i].name)
			if err != nil {
				return err
			}
			c.sendTests(c.apps[(i+1)%len(c.apps)], time.Duration(500+c.rand.IntN(500))*time.Millisecond)
			if err := tx.Rollback(ctx); err != nil {
				return err
			}
			c.pause(0.1, 0.3)
		}
		return nil
	})
	c.donef(harmLock, from, "of each app in turn")
}

// sendTests sends test events to an endpoint of an app for a time.
func (c *chaos) sendTests(app *chaosApp, d time.Duration) {
	end := time.Now().Add(d)
	var list struct{ Data []struct{ ID string } }
	status, answer := c.call(app.key, http.MethodGet, "/v1/endpoints", nil)
	if status == http.StatusOK && json.Unmarshal(answer, &list) == nil && len(list.Data) > 0 {
		for time.Until(end) > 150*time.Millisecond {
			c.call(app.key, http.MethodPost, "/v1/endpoints/"+list.Data[0].ID+"/test", nil)
			time.Sleep(100 * time.Millisecond)
		}
	}
	time.Sleep(time.Until(end))
}

// removeJobs removes the jobs that wait while a receiver fails, as one does who trims a queue by hand.
func (c *chaos) removeJobs() {
	from := time.Now()
	r := c.apps[c.rand.IntN(len(c.apps))].receivers[0]
	mood := r.mood.Swap(moodFails)
	removed := int64(0)
	c.superuser(func(ctx context.Context, conn *pgx.Conn) error {
		for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			tag, err := conn.Exec(ctx, `
				delete from memhook.river_job
				where id in (
					select id
					from memhook.river_job
					where state in ('available', 'scheduled', 'retryable') and (kind like 'deliver%' or queue = 'poll')
					for update skip locked
				)`)
			if err != nil {
				return err
			}
			removed += tag.RowsAffected()
		}
		return nil
	})
	r.mood.Store(mood)
	c.donef(harmJobs, from, "%d of them", removed)
}
