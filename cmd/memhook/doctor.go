package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/memhook/memhook/memories"
	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/worker"
)

type doctorCommand struct {
	Egress string `help:"Also try whether webhooks can reach this URL."`
}

const (
	// What the clocks of the database and of this machine may differ.
	skewWarn, skewFail = time.Second, 5 * time.Second
	leastPostgres      = 140000
	doctorTimeout      = 10 * time.Second
)

// doctor examines an installation and says of each part whether it is well, and if not, what to do.
type doctor struct {
	cfg    *settings
	failed int
}

func (d *doctor) okf(part, format string, args ...any) {
	d.say("ok", part, fmt.Sprintf(format, args...), "")
}

func (d *doctor) warnf(part, remedy, format string, args ...any) {
	d.say("warn", part, fmt.Sprintf(format, args...), remedy)
}

func (d *doctor) failf(part, remedy, format string, args ...any) {
	d.failed++
	d.say("FAIL", part, fmt.Sprintf(format, args...), remedy)
}

func (d *doctor) say(state, part, what, remedy string) {
	fmt.Printf("%-5s %-15s %s\n", state, part, what)
	if remedy != "" {
		fmt.Printf("      %-15s → %s\n", "", remedy)
	}
}

// Run examines the settings, the database, the keys, memories.ai and the way out, and fails if anything is
// wrong. It changes nothing, and asks memories.ai once, within the account's budget.
func (c doctorCommand) Run(ctx context.Context) error {
	d := &doctor{}
	cfg, err := readSettings(os.Getenv, "DATABASE_URL", "MEMHOOK_ENCRYPTION_KEY")
	if wrong, ok := errors.AsType[settingErrors](err); ok {
		for _, line := range wrong {
			name, what, _ := strings.Cut(line, ": ")
			d.failf("settings", "set "+name+" as `memhook --help` says", "%s: %s", name, what)
		}
		return d.verdict()
	}
	d.cfg = cfg
	d.okf("settings", "all can be read")
	d.address()
	if pool := d.database(ctx); pool != nil {
		defer pool.Close()
		d.rights(ctx, pool)
		d.clock(ctx, pool)
		if d.schema(ctx, pool) {
			d.keys(ctx, pool)
		}
	}
	if c.Egress != "" {
		d.egress(ctx, c.Egress)
	}
	return d.verdict()
}

func (d *doctor) verdict() error {
	if d.failed > 0 {
		return fmt.Errorf("%d things are wrong", d.failed)
	}
	return nil
}

func (d *doctor) address() {
	l, err := net.Listen("tcp", d.cfg.Addr)
	if err != nil {
		d.failf("address", "choose another MEMHOOK_ADDR, or end what listens there; a running memhook is well", "%v", err)
	} else {
		_ = l.Close()
		d.okf("address", "%s is free", d.cfg.Addr)
	}
	if d.cfg.AdminToken == "" {
		d.warnf("admin", "set MEMHOOK_ADMIN_TOKEN, for example to the output of: openssl rand -hex 24", "the admin API and the dashboard are off")
	}
	if d.cfg.PublicURL == "" {
		d.warnf("hints", "set MEMHOOK_PUBLIC_URL to where memories.ai reaches this service", "there are no hint URLs")
	}
}

func (d *doctor) database(ctx context.Context) *pgxpool.Pool {
	start := time.Now()
	pool, err := store.Open(ctx, d.cfg.DatabaseURL, 2, 0, func(error) {})
	if err != nil {
		d.failf("database", "start PostgreSQL, and check host, port, name, user and password in DATABASE_URL", "%v", err)
		return nil
	}
	took := time.Since(start)
	var version int
	var text string
	var connections int
	err = pool.QueryRow(ctx, `select current_setting('server_version_num')::int, current_setting('server_version'), current_setting('max_connections')::int`).Scan(&version, &text, &connections)
	switch {
	case err != nil:
		d.failf("database", "see PostgreSQL's log", "%v", err)
	case version < leastPostgres:
		d.failf("database", "upgrade to PostgreSQL 14 or newer", "PostgreSQL %s is too old", text)
	default:
		d.okf("database", "PostgreSQL %s, reached in %s", text, took.Round(time.Millisecond))
	}
	if err == nil && connections < 3*connectionsEach {
		d.warnf("connections", fmt.Sprintf("raise max_connections to %d for each instance, or set pool_max_conns in DATABASE_URL", connectionsEach), "max_connections is %d; an instance uses up to %d", connections, connectionsEach)
	}
	return pool
}

// connectionsEach is what an instance takes of the database's connections: its pool, and River's listener.
const connectionsEach = connections + 1

func (d *doctor) rights(ctx context.Context, pool *pgxpool.Pool) {
	var create bool
	var user string
	err := pool.QueryRow(ctx, `select has_schema_privilege(current_schema(), 'create'), current_user`).Scan(&create, &user)
	switch {
	case err != nil:
		d.failf("rights", "check search_path: memhook's tables need a schema", "%v", err)
	case !create:
		d.failf("rights", "as the database's owner: grant create on schema public to "+user, "the user %s may not create tables", user)
	default:
		d.okf("rights", "the user %s may create tables", user)
	}
}

func (d *doctor) clock(ctx context.Context, pool *pgxpool.Pool) {
	var theirs time.Time
	before := time.Now()
	if err := pool.QueryRow(ctx, `select clock_timestamp()`).Scan(&theirs); err != nil {
		d.failf("clock", "see PostgreSQL's log", "%v", err)
		return
	}
	ours := before.Add(time.Since(before) / 2)
	skew := theirs.Sub(ours).Abs()
	switch {
	case skew > skewFail:
		d.failf("clock", "let both machines follow NTP", "the database's clock is %s away from this machine's", skew.Round(time.Millisecond))
	case skew > skewWarn:
		d.warnf("clock", "let both machines follow NTP", "the database's clock is %s away from this machine's", skew.Round(time.Millisecond))
	default:
		d.okf("clock", "within %s of the database's", max(skew, time.Millisecond).Round(time.Millisecond))
	}
}

func (d *doctor) schema(ctx context.Context, pool *pgxpool.Pool) (current bool) {
	err := store.CheckSchema(ctx, pool)
	switch {
	case err == nil:
		d.okf("schema", "current")
		return true
	case errors.Is(err, store.ErrSchemaNewer):
		d.failf("schema", "install the newer memhook; an older one must not run on its schema", "%v", err)
	case d.cfg.AutoMigrate:
		d.warnf("schema", "serve migrates at its start, or run: memhook migrate up", "%v", err)
	default:
		d.failf("schema", "run: memhook migrate up (MEMHOOK_AUTO_MIGRATE is false)", "%v", err)
	}
	return false
}

// keys checks the encryption key and, with what it opens, each account's key of memories.ai.
func (d *doctor) keys(ctx context.Context, pool *pgxpool.Pool) {
	st, err := store.New(pool, store.Config{Keys: d.cfg.EncryptionKey, Encode: worker.EncodeEvent, Settle: d.cfg.SettleWindow, Logger: d.cfg.logger()})
	if err == nil {
		err = st.VerifyKeys(ctx)
	}
	if err != nil {
		d.failf("encryption key", "set MEMHOOK_ENCRYPTION_KEY to the key that this database was begun with, or add that key behind the new one and run memhook rotate-keys", "%v", err)
		return
	}
	d.okf("encryption key", "fits this database")
	accounts, err := st.AllAccounts(ctx)
	if err != nil {
		d.failf("memories.ai", "see PostgreSQL's log", "%v", err)
		return
	}
	if len(accounts) == 0 {
		d.warnf("memories.ai", "set MEMORIES_API_KEY, or add an account in the dashboard", "there is no account yet")
		return
	}
	client := memories.New(d.cfg.MemoriesBaseURL, 1, "memhook/"+version())
	defer client.Close()
	key, wait, err := st.ReserveSlot(ctx, accounts[0].ID)
	if err != nil {
		d.failf("memories.ai", "see PostgreSQL's log", "%v", err)
		return
	}
	time.Sleep(wait)
	asking, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	d.judge(accounts[0].Name, client.TaskStatus(asking, memories.Account{Key: string(key)}, "memhook-doctor-made-this-up", "default"))
}

func (d *doctor) judge(account string, status memories.Status) {
	said := strings.TrimSpace(status.Code + " " + status.Message)
	switch status.Outcome {
	case memories.Listed, memories.TaskRefused:
		d.okf("memories.ai", "accepts the key of the account %s", account)
	case memories.AccountRefused:
		d.failf("memories.ai", "replace the account's key: MEMORIES_API_KEY, or in the dashboard under Accounts", "refuses the key of the account %s: %s", account, said)
	case memories.OutOfCredits:
		d.failf("memories.ai", "buy credits; polling resumes by itself", "the account %s has no credits left: %s", account, said)
	case memories.RateLimited:
		d.warnf("memories.ai", "something else uses the account's budget: end it, or lower requests_per_second", "limits the account %s: %s", account, said)
	default:
		d.failf("memories.ai", "check MEMORIES_BASE_URL, DNS and the firewall from this machine", "does not answer as it should: %s", said)
	}
}
