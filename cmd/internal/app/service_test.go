package app

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/memhook/memhook/cmd/memhook-dev/proc"
	"github.com/memhook/memhook/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// serviceSettings are those of an instance on a migrated database of its own, at a free address.
func serviceSettings(t *testing.T, more map[string]string) *Settings {
	t.Helper()
	addr, err := proc.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{
		"DATABASE_URL": storetest.URL(t), "MEMHOOK_ENCRYPTION_KEY": storetest.EncryptionKey, "MEMHOOK_ADDR": addr,
		"MEMHOOK_AUTO_MIGRATE": "false", "MEMHOOK_SHUTDOWN_TIMEOUT": "5s",
	}
	maps.Copy(env, more)
	cfg, err := ReadSettings(func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func get(url string) int {
	resp, err := http.Get(url)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// A certificate that is not there is a wrong setting, as the file of any other setting is.
func TestACertificateThatCannotBeLoaded(t *testing.T) {
	t.Parallel()
	cfg := &Settings{Addr: "127.0.0.1:0", MaxConnections: 1, TLSCert: "missing.crt", TLSKey: "missing.key"}
	l, err := listen(cfg)
	if err == nil {
		_ = l.Close()
	}
	if lines, ok := errors.AsType[SettingErrors](err); !ok || len(lines) != 1 || !strings.HasPrefix(lines[0], "MEMHOOK_TLS_CERT: cannot be loaded: ") {
		t.Errorf("%T: %v", err, err)
	}
}

// Whatever step of a start fails, the address is free again and no connection to the database is left.
func TestAFailedStartLeavesNothing(t *testing.T) {
	t.Parallel()
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = busy.Close() })
	for name, c := range map[string]struct{ env, broken string }{
		"the metrics' address is taken":  {env: busy.Addr().String()},
		"the schema is not the needed":   {broken: `delete from goose_db_version where version_id > 1`},
		"the key is another":             {broken: `insert into keyring_check (sealed) values ('\x00')`},
		"the instance cannot be entered": {broken: `alter table instances rename to gone`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := serviceSettings(t, map[string]string{"MEMHOOK_METRICS_ADDR": c.env})
			conn := connect(t, cfg.DatabaseURL)
			if c.broken != "" {
				if _, err := conn.Exec(t.Context(), c.broken); err != nil {
					t.Fatal(err)
				}
			}
			s, err := Start(t.Context(), cfg, RoleAll, slog.New(slog.DiscardHandler))
			if err == nil {
				_ = s.Stop()
				t.Fatal("it started")
			}
			t.Log(err)
			l, err := net.Listen("tcp", cfg.Addr)
			if err != nil {
				t.Errorf("the address: %v", err)
			} else {
				_ = l.Close()
			}
			until(t, "no connection is left", func() bool {
				var n int
				err := conn.QueryRow(t.Context(), `
					select count(*) from pg_stat_activity
					where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()`).Scan(&n)
				return err == nil && n == 0
			})
		})
	}
}

// The workers start last: while they cannot, HTTP is served already, and /readyz sends nobody here.
func TestTheWorkersStartLast(t *testing.T) {
	t.Parallel()
	cfg := serviceSettings(t, nil)
	conn := connect(t, cfg.DatabaseURL)
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `lock table instances in access exclusive mode`); err != nil {
		t.Fatal(err)
	}
	type started struct {
		s   *Service
		err error
	}
	done := make(chan started, 1)
	go func() {
		s, err := Start(context.WithoutCancel(t.Context()), cfg, RoleAll, slog.New(slog.DiscardHandler))
		done <- started{s, err}
	}()
	stop := sync.OnceValue(func() error {
		if err := tx.Rollback(context.WithoutCancel(t.Context())); err != nil {
			return err
		}
		got := <-done
		if got.err != nil {
			return got.err
		}
		return got.s.Stop()
	})
	t.Cleanup(func() { _ = stop() })
	until(t, "the probe answers", func() bool { return get("http://"+cfg.Addr+"/healthz") == http.StatusOK })
	if len(done) > 0 {
		t.Error("the workers have started although their table is locked")
	}
	if status := get("http://" + cfg.Addr + "/readyz"); status != http.StatusServiceUnavailable {
		t.Errorf("before they have started /readyz answers %d", status)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if status := get("http://" + cfg.Addr + "/healthz"); status != 0 {
		t.Errorf("after Stop the probe answers %d", status)
	}
}
