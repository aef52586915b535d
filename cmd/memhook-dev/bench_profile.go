package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/memhook/memhook/cmd/internal/app"
	"github.com/memhook/memhook/store/localpg"
)

// profiledCommand is `memhook serve` with a CPU profile. memhook itself has no profiling.
type profiledCommand struct {
	Profile string `required:"" help:"File that gets the profile when the service ends."`
}

// Run serves until SIGINT or SIGTERM.
func (c profiledCommand) Run(ctx context.Context) (err error) {
	cfg, err := app.ReadSettings(os.Getenv, "DATABASE_URL", "MEMHOOK_ENCRYPTION_KEY")
	if err != nil {
		return err
	}
	go app.TuneMemory(ctx)
	file, err := os.Create(c.Profile)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	s, err := app.Start(ctx, cfg, "all", cfg.Logger())
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	select {
	case <-ctx.Done():
		return s.Stop()
	case err := <-s.Failed():
		return errors.Join(err, s.Stop())
	}
}

// serveProfiled runs an instance, which writes a CPU profile if profile is not empty.
func (r *rig) serveProfiled(ctx context.Context, profile string) (addr string, pid int, err error) {
	if profile == "" {
		return r.serve(ctx)
	}
	return r.serveAs(ctx, "memhook-dev", "bench", "serve", "--profile", profile)
}

// newRigFor makes the rig of a load. If the load is profiled, PostgreSQL counts its statements where it can.
func newRigFor(ctx context.Context, l deliveryLoad) (*rig, error) {
	if l.profile != "" && hasStatements() {
		return newRigWith(ctx, nil, map[string]string{
			"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track_planning": "on",
		})
	}
	return newRig(ctx, nil)
}

// hasStatements reports whether the installed PostgreSQL has pg_stat_statements.
func hasStatements() bool {
	program, err := localpg.Program("postgres")
	if err != nil {
		return false
	}
	if program, err = filepath.EvalSymlinks(program); err != nil {
		return false
	}
	for _, dir := range []string{"lib", "lib/postgresql"} {
		if _, err := os.Stat(filepath.Join(filepath.Dir(filepath.Dir(program)), dir, "pg_stat_statements.so")); err == nil {
			return true
		}
	}
	return false
}

// statement is what PostgreSQL took for all executions of one statement.
type statement struct {
	SQL          string
	Calls        int64
	Milliseconds float64
}

// resetStatements begins to count statements, if wanted and possible.
func (r *rig) resetStatements(ctx context.Context, wanted bool) error {
	if !wanted || !hasStatements() {
		return nil
	}
	for _, sql := range []string{"create extension if not exists pg_stat_statements", "select pg_stat_statements_reset()"} {
		if _, err := r.store.Pool().Exec(ctx, sql); err != nil {
			return fmt.Errorf("count statements: %w", err)
		}
	}
	return nil
}

// statements returns what was counted since resetStatements.
func (r *rig) statements(ctx context.Context, wanted bool) (all []statement, err error) {
	if !wanted || !hasStatements() {
		return nil, nil
	}
	rows, err := r.store.Pool().Query(ctx, `
		select query, calls, total_exec_time + total_plan_time from pg_stat_statements order by total_exec_time + total_plan_time desc`)
	if err != nil {
		return nil, fmt.Errorf("read the statements: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var s statement
		if err := rows.Scan(&s.SQL, &s.Calls, &s.Milliseconds); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, rows.Err()
}

// keepStatements writes the statements into a file, the longest first, a line each.
func keepStatements(file string, all []statement) error {
	var b strings.Builder
	for _, s := range all {
		fmt.Fprintf(&b, "%9.1f ms %7d calls  %s\n", s.Milliseconds, s.Calls, strings.Join(strings.Fields(s.SQL), " "))
	}
	return os.WriteFile(file, []byte(b.String()), 0o644) //nolint:gosec // for everybody
}

// part is a step of a delivery, and how it is told in a profile of the service and in PostgreSQL's statements: by the
// first part of which a trace has one of the functions, or the SQL one of the words.
type part struct {
	name           string
	functions, sql []string
}

var parts = []part{
	{name: "garbage collector",
		functions: []string{"runtime.gcBgMarkWorker", "runtime.gcAssistAlloc", "runtime.bgsweep", "runtime.bgscavenge"}},
	{name: "sign, v1a", functions: []string{"crypto/ed25519."}},
	{name: "sign, v1", functions: []string{"webhook.Sign"}},
	{name: "POST", functions: []string{"net/http.", "webhook.(*Sender)", "internal/outbound."}},
	{name: "fetch jobs", functions: []string{"JobGetAvailable", "river.(*producer)"}, sql: []string{"JobGetAvailable", "locked_jobs"}},
	{name: "complete jobs", functions: []string{"jobcompleter."}, sql: []string{"JobSetStateIfRunningMany", "job_to_finalized"}},
	{name: "load deliveries", functions: []string{"loadDeliveryBatch", "LoadDeliveries", "store.(*Store).Receivers"},
		sql: []string{"from deliveries d", "from endpoints"}},
	{name: "record attempts", functions: []string{"recordAttemptBatch", "RecordAttempt"}, sql: []string{"insert into attempts"}},
	{name: recordPolls, sql: []string{"from tasks", "update tasks"}},
	{name: "insert event, delivery and job", sql: []string{
		"insert into events", "insert into deliveries", `copy "river_job"`, "from subscriptions", "from apps",
	}},
	{name: "commit", sql: []string{"commit", "begin"}},
	{name: "attempt, limiters and jobs", functions: []string{"worker.(*Worker)", "worker.(*limiter", "jobexecutor."}},
	{name: "scheduler", functions: []string{"runtime.mcall", "runtime.mstart", "runtime.sysmon", "runtime.schedule", "runtime.goexit0"}},
	{name: "the rest", functions: []string{""}, sql: []string{""}},
}

// recordPolls is the part that gets all CPU of the benchmark's process, which records the polls, and of PostgreSQL's the
// tasks' rows.
const recordPolls = "record polls"

// partOf returns the number of the part that a text of functions or of SQL belongs to.
func partOf(text string, words func(part) []string) int {
	for i, p := range parts {
		for _, word := range words(p) {
			if strings.Contains(text, word) {
				return i
			}
		}
	}
	return len(parts) - 1
}

// statementShares returns the share of each part in PostgreSQL's time, or nil if nothing was counted.
func statementShares(all []statement) []float64 {
	spent := make([]float64, len(parts))
	for _, s := range all {
		spent[partOf(s.SQL, func(p part) []string { return p.sql })] += s.Milliseconds
	}
	return shares(spent)
}

// profileShares returns the share of each part in the CPU time of a profile.
func profileShares(ctx context.Context, profile string) ([]float64, error) {
	out, err := exec.CommandContext(ctx, "go", "tool", "pprof", "-traces", "-unit=ms", profile).Output() //nolint:gosec // our file
	if err != nil {
		return nil, fmt.Errorf("go tool pprof: %w", err)
	}
	spent := make([]float64, len(parts))
	for trace := range bytes.SplitSeq(out, []byte("-----------+")) {
		var took time.Duration
		for lines := bufio.NewScanner(bytes.NewReader(trace)); lines.Scan(); {
			fields := strings.Fields(lines.Text())
			if len(fields) < 2 {
				continue
			}
			if d, err := time.ParseDuration(fields[0]); err == nil {
				took = d
				break
			}
		}
		spent[partOf(string(trace), func(p part) []string { return p.functions })] += took.Seconds()
	}
	return shares(spent), nil
}

// shares scales values to a sum of 1. It returns nil if all are 0.
func shares(values []float64) []float64 {
	total := 0.0
	for _, v := range values {
		total += v
	}
	if total == 0 {
		return nil
	}
	for i := range values {
		values[i] /= total
	}
	return values
}
