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

	"github.com/memhook/memhook/cmd/internal/app"
	"github.com/memhook/memhook/memories"
	"github.com/memhook/memhook/store"
)

type doctorCommand struct {
	Egress string `help:"Also check that webhooks can reach this URL."`
}

const (
	// skewWarn and skewFail are differences between the clocks of the database and of this machine.
	skewWarn, skewFail = time.Second, 5 * time.Second
	leastPostgres      = 140000 // as server_version_num has it
	doctorTimeout      = 10 * time.Second
	// connectionsEach is how many database connections an instance uses: its pool, and River's listener.
	connectionsEach = app.PoolSize + 1
)

// doctor checks an installation and prints of each part whether it works, and if not, what to do.
type doctor struct {
	cfg    *app.Settings
	failed int
}

func (d *doctor) okf(part, format string, args ...any) {
	d.print("ok", part, fmt.Sprintf(format, args...), "")
}

func (d *doctor) warnf(part, remedy, format string, args ...any) {
	d.print("warn", part, fmt.Sprintf(format, args...), remedy)
}

func (d *doctor) failf(part, remedy, format string, args ...any) {
	d.failed++
	d.print("FAIL", part, fmt.Sprintf(format, args...), remedy)
}

func (d *doctor) print(state, part, what, remedy string) {
	fmt.Printf("%-5s %-15s %s\n", state, part, what)
	if remedy != "" {
		fmt.Printf("      %-15s → %s\n", "", remedy)
	}
}

// Run checks the settings, the database, the keys, memories.ai and outgoing connections, and returns an error if anything
// is wrong; a wrong setting ends the program with status 2. It changes nothing. It sends memories.ai one request or two,
// within the account's budget.
func (c doctorCommand) Run(ctx context.Context) error {
	d := &doctor{}
	cfg, err := app.ReadSettings(os.Getenv, "DATABASE_URL", "MEMHOOK_ENCRYPTION_KEY")
	if wrong, ok := errors.AsType[app.SettingErrors](err); ok {
		for _, line := range wrong {
			name, what, _ := strings.Cut(line, ": ")
			d.failf("settings", "set "+name+" as `memhook --help` says", "%s: %s", name, what)
		}
		return app.ExitError{Status: app.ExitUsage, Err: d.verdict()}
	}
	d.cfg = cfg
	d.okf("settings", "all are valid")
	d.address(ctx)
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
	switch d.failed {
	case 0:
		return nil
	case 1:
		return errors.New("1 check failed")
	default:
		return fmt.Errorf("%d checks failed", d.failed)
	}
}

func (d *doctor) address(ctx context.Context) {
	l, err := net.Listen("tcp", d.cfg.Addr)
	switch {
	case err != nil && (healthCommand{}).Run(ctx) == nil:
		d.okf("address", "a memhook serves at %s", d.cfg.Addr)
	case err != nil:
		d.failf("address", "choose another MEMHOOK_ADDR, or stop the program that listens there", "%v", err)
	default:
		_ = l.Close()
		d.okf("address", "%s is free", d.cfg.Addr)
	}
	if d.cfg.AdminToken == "" {
		d.warnf("admin", "set MEMHOOK_ADMIN_TOKEN, for example to the output of: openssl rand -hex 24",
			"the admin API and the dashboard are off")
	}
	if d.cfg.PublicURL == "" {
		d.warnf("hints", "set MEMHOOK_PUBLIC_URL to the URL at which memories.ai reaches this service", "there are no hint URLs")
	}
}

func (d *doctor) database(ctx context.Context) *pgxpool.Pool {
	start := time.Now()
	pool, err := store.Open(ctx, store.Database{URL: d.cfg.DatabaseURL, Pooler: d.cfg.DatabasePooler, Conns: 2})
	if err != nil {
		d.failf("database", "start PostgreSQL, and check host, port, name, user and password in DATABASE_URL", "%v", err)
		return nil
	}
	took := time.Since(start)
	var version int
	var text string
	var connections int
	err = pool.QueryRow(ctx, `
		select current_setting('server_version_num')::int, current_setting('server_version'), current_setting('max_connections')::int`).
		Scan(&version, &text, &connections)
	switch {
	case err != nil:
		d.failf("database", "look at PostgreSQL's log", "%v", err)
	case version < leastPostgres:
		d.failf("database", "upgrade to PostgreSQL 14 or newer", "PostgreSQL %s is too old", text)
	default:
		d.okf("database", "PostgreSQL %s, connected in %s", text, took.Round(time.Millisecond))
	}
	if err == nil && connections < 3*connectionsEach {
		d.warnf("connections", fmt.Sprintf("raise max_connections to %d per instance, or set pool_max_conns in DATABASE_URL", connectionsEach),
			"max_connections is %d; an instance uses up to %d", connections, connectionsEach)
	}
	return pool
}

// rights checks that migrations may create tables.
func (d *doctor) rights(ctx context.Context, pool *pgxpool.Pool) {
	r, err := store.ReadRights(ctx, pool)
	switch {
	case err != nil:
		d.failf("rights", "look at PostgreSQL's log", "%v", err)
	case r.Migrated && !r.Serve:
		d.failf("rights", "as the owner of the tables, run: grant select, insert, update, delete on all tables, and usage on all sequences, "+
			"in schema "+r.Schema+" to "+r.User, "the user %s may not read and change all of memhook's tables", r.User)
	case r.Migrate:
		d.okf("rights", "the user %s may migrate and serve", r.User)
	case r.Migrated && !d.cfg.AutoMigrate:
		d.okf("rights", "the user %s may serve; another user migrates", r.User)
	case r.Migrated:
		d.warnf("rights", "set MEMHOOK_AUTO_MIGRATE=false, and run memhook migrate up as the owner of the tables",
			"the user %s may serve but not migrate", r.User)
	case r.Schema == "":
		d.failf("rights", "as the owner of the database, run: create schema memhook authorization "+r.User,
			"the user %s may not create the schema memhook", r.User)
	default:
		d.failf("rights", "as the owner of the database, run: grant create on schema "+r.Schema+" to "+r.User,
			"the user %s may not create tables", r.User)
	}
}

func (d *doctor) clock(ctx context.Context, pool *pgxpool.Pool) {
	var theirs time.Time
	before := time.Now()
	if err := pool.QueryRow(ctx, `select clock_timestamp()`).Scan(&theirs); err != nil {
		d.failf("clock", "look at PostgreSQL's log", "%v", err)
		return
	}
	ours := before.Add(time.Since(before) / 2)
	skew := theirs.Sub(ours).Abs()
	const remedy, finding = "synchronize both machines with NTP", "the database's clock differs from this machine's by %s"
	switch {
	case skew > skewFail:
		d.failf("clock", remedy, finding, skew.Round(time.Millisecond))
	case skew > skewWarn:
		d.warnf("clock", remedy, finding, skew.Round(time.Millisecond))
	default:
		d.okf("clock", "within %s of the database's clock", max(skew, time.Millisecond).Round(time.Millisecond))
	}
}

// schema reports whether the database has the schema that this memhook needs.
func (d *doctor) schema(ctx context.Context, pool *pgxpool.Pool) (current bool) {
	err := store.CheckSchema(ctx, pool)
	switch {
	case err == nil:
		d.okf("schema", "current")
		return true
	case errors.Is(err, store.ErrSchemaNewer):
		d.failf("schema", "install the newer memhook; this version must not run on its schema", "%v", err)
	case d.cfg.AutoMigrate:
		d.warnf("schema", "start serve, which migrates, or run: memhook migrate up", "%v", err)
	default:
		d.failf("schema", "run: memhook migrate up (MEMHOOK_AUTO_MIGRATE is false)", "%v", err)
	}
	return false
}

// keys checks the encryption key and, if it fits, the first account's memories.ai key.
func (d *doctor) keys(ctx context.Context, pool *pgxpool.Pool) {
	st, err := app.NewStore(pool, d.cfg, d.cfg.Logger(), nil)
	if err == nil {
		err = st.VerifyKeys(ctx)
	}
	if err != nil {
		d.failf("encryption key", "set MEMHOOK_ENCRYPTION_KEY to the key that encrypted this database, "+
			"or add that key after the new one and run: memhook rotate-keys", "%v", err)
		return
	}
	d.okf("encryption key", "fits this database")
	accounts, err := st.AllAccounts(ctx)
	if err != nil {
		d.failf("memories.ai", "look at PostgreSQL's log", "%v", err)
		return
	}
	if len(accounts) == 0 {
		d.warnf("memories.ai", "set MEMORIES_API_KEY, or add an account in the dashboard", "there is no account yet")
		return
	}
	d.memoriesKey(ctx, st, accounts[0])
}

// memoriesKey checks an account's memories.ai key: it asks for a task that does not exist, once more if
// memories.ai wants the key in another form.
func (d *doctor) memoriesKey(ctx context.Context, st *store.Store, account store.Account) {
	client := memories.New(d.cfg.MemoriesBaseURL, 1, "memhook/"+app.Version())
	defer client.Close()
	status, err := ask(ctx, st, client, account)
	if err == nil && status.Outcome == memories.AskAgain {
		status, err = ask(ctx, st, client, account)
	}
	if err != nil {
		d.failf("memories.ai", "look at PostgreSQL's log", "%v", err)
		return
	}
	d.printAnswer(account.Name, status)
}

// ask asks memories.ai for a task that does not exist, at the next slot of the account's budget.
func ask(ctx context.Context, st *store.Store, client *memories.Client, account store.Account) (memories.Status, error) {
	key, wait, err := st.ReserveSlot(ctx, account.ID)
	if err != nil {
		return memories.Status{}, err
	}
	time.Sleep(wait)
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	caller := memories.Account{API: memories.API(account.API), Key: string(key)}
	return client.TaskStatus(ctx, caller, "memhook-doctor-made-this-up", "default"), nil
}

// printAnswer prints what memories.ai's answer means for an account's key.
func (d *doctor) printAnswer(account string, status memories.Status) {
	answer := strings.TrimSpace(status.Code + " " + status.Message)
	switch status.Outcome {
	case memories.Listed, memories.TaskRefused:
		d.okf("memories.ai", "accepts the key of the account %s", account)
	case memories.AccountRefused:
		d.failf("memories.ai", "replace the account's key: MEMORIES_API_KEY, or in the dashboard under Accounts",
			"refuses the key of the account %s: %s", account, answer)
	case memories.OutOfCredits:
		d.failf("memories.ai", "buy credits; polling resumes by itself", "the account %s has no credits left: %s", account, answer)
	case memories.RateLimited:
		d.warnf("memories.ai", "find what else uses the account's budget, or lower requests_per_second",
			"rate limits the account %s: %s", account, answer)
	default:
		d.failf("memories.ai", "check MEMORIES_BASE_URL, DNS and the firewall from this machine", "does not answer as it should: %s", answer)
	}
}
