package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/memhook/memhook/memories/memoriestest"
)

// harm is one fault that was done.
type harm struct {
	kind, what  string
	from, until time.Time
}

// The kinds of harm that can lose the outcome of an attempt whose receiver has accepted: the webhook then comes again.
const (
	harmKill     = "an instance killed (-9)"
	harmStop     = "an instance stopped (SIGSTOP)"
	harmRestart  = "PostgreSQL restarted"
	harmCrowd    = "PostgreSQL out of connections"
	harmDisk     = "PostgreSQL's disk full"
	harmSlow     = "slow connections to PostgreSQL"
	harmCut      = "cut connections to PostgreSQL"
	harmHang     = "PostgreSQL hanging (SIGSTOP)"
	harmReadOnly = "PostgreSQL taking no writes"
	harmLock     = "rows locked by another's transaction"
	harmSkew     = "an instance's clock wrong"
	harmJobs     = "waiting jobs removed"
	harmOutage   = "memories.ai hanging"
	harmStorm    = "memories.ai limiting"
	harmGarbage  = "memories.ai answering nonsense"
	harmForeign  = "memories.ai answering of another task"
	harmClock    = "memories.ai's clock jumping"
	harmReceiver = "a receiver changing its mood"
)

var losesOutcomes = map[string]bool{
	harmKill: true, harmStop: true, harmRestart: true, harmCrowd: true, harmDisk: true, harmSlow: true, harmCut: true,
	harmHang: true, harmReadOnly: true, harmLock: true, harmSkew: true, // an instance is killed to set its clock
}

// donef notes a harm that began at from and has just ended.
func (c *chaos) donef(kind string, from time.Time, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.harms = append(c.harms, harm{kind, fmt.Sprintf(format, args...), from, time.Now()})
}

// fault does one harm, drawn by the seed, and mends it. Each kind comes before any comes again.
func (c *chaos) fault() {
	if len(c.deck) == 0 {
		c.deck = c.rand.Perm(pick(16, 17))
	}
	kind := c.deck[0]
	c.deck = c.deck[1:]
	in := c.instances[c.rand.IntN(len(c.instances))]
	length := time.Duration(500+c.rand.IntN(4000)) * time.Millisecond
	from := time.Now()
	switch kind {
	case 0, 1:
		c.end(in)
		time.Sleep(length)
		c.start(in)
		c.donef(harmKill, from, "%s, started again", in.addr)
	case 2:
		c.signal(in, syscall.SIGSTOP)
		time.Sleep(2 * length)
		c.signal(in, syscall.SIGCONT)
		c.donef(harmStop, from, "%s", in.addr)
	case 3:
		sig, how := syscall.SIGINT, "fast"
		if c.rand.IntN(2) == 0 {
			sig, how = syscall.SIGQUIT, "immediate"
		}
		_ = c.pg.Shutdown(sig)
		time.Sleep(length)
		c.revive()
		c.donef(harmRestart, from, "%s", how)
	case 4:
		c.hog(length)
		c.donef(harmCrowd, from, "")
	case 5:
		c.fillDisk(length)
	case 6:
		c.toxic(`{"type":"latency","attributes":{"latency":100,"jitter":50}}`, 2*length)
		c.donef(harmSlow, from, "by 100 ms")
	case 7:
		c.toxic(`{"type":"reset_peer","attributes":{"timeout":0}}`, length)
		c.donef(harmCut, from, "")
	case 8:
		c.control("stall", map[string]any{"for_ms": length.Milliseconds()})
		time.Sleep(length)
		c.donef(harmOutage, from, "")
	case 9:
		kinds := []struct{ fault, kind string }{
			{memoriestest.FaultRateLimited, harmStorm}, {memoriestest.FaultHTTP429, harmStorm}, {memoriestest.FaultHTML, harmGarbage}, {memoriestest.FaultForeign, harmForeign},
		}
		k := kinds[c.rand.IntN(len(kinds))]
		faults := make([]memoriestest.Fault, 2+c.rand.IntN(3)) // the account's rest doubles with each
		for i := range faults {
			faults[i].Kind = k.fault
		}
		c.control("faults", faults)
		c.donef(k.kind, from, "%d times with %s", len(faults), k.fault)
	case 10:
		jump := time.Duration(c.rand.IntN(8000)-3000) * time.Millisecond
		c.control("clock", map[string]any{"jump_ms": jump.Milliseconds()})
		c.donef(harmClock, from, "by %s", jump)
	case 11:
		c.hang(2 * length)
		c.donef(harmHang, from, "")
	case 12:
		c.donef(harmReadOnly, from, "%s", c.turnReadOnly(2*length))
	case 13:
		c.lockRows()
	case 14:
		c.removeJobs()
	case 16:
		c.donef(harmSkew, from, "%s", c.skewClock(in))
	default:
		app := c.apps[c.rand.IntN(len(c.apps))]
		r := app.receivers[c.rand.IntN(len(app.receivers))]
		mood := int64(c.rand.IntN(moods))
		r.mood.Store(mood)
		c.donef(harmReceiver, from, "%s is %s", r.name, []string{"well", "failing", "hanging", "late", "answering twice", "cutting connections"}[mood])
	}
}

func (c *chaos) revive() {
	for deadline := time.Now().Add(time.Minute); ; {
		err := c.pg.Run(context.Background())
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.t.Errorf("PostgreSQL does not come back: %v", err)
			return
		}
		time.Sleep(500 * time.Millisecond)
	}
}

func (c *chaos) toxic(config string, d time.Duration) {
	toxic, err := c.proxy.Toxics.AddToxicJson(strings.NewReader(config))
	if err != nil {
		c.t.Error(err)
		return
	}
	time.Sleep(d)
	_ = c.proxy.Toxics.RemoveToxic(context.Background(), toxic.Name)
}

// hog takes all connections that PostgreSQL has.
func (c *chaos) hog(d time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	var held []*pgx.Conn
	for ctx.Err() == nil {
		conn, err := pgx.Connect(ctx, "postgres://memhook@"+c.pgAddr+"/postgres?sslmode=disable")
		if err != nil {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		held = append(held, conn)
	}
	for _, conn := range held {
		_ = conn.Close(context.Background())
	}
}

// fillDisk leaves PostgreSQL no room. It may well end over that; then it is started again.
func (c *chaos) fillDisk(d time.Duration) {
	if c.disk == "" {
		return
	}
	from := time.Now()
	ballast := filepath.Join(c.disk, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		return
	}
	chunk := make([]byte, 1<<20)
	for err == nil {
		_, err = f.Write(chunk)
	}
	_ = f.Close()
	time.Sleep(d)
	_ = os.Remove(ballast)
	time.Sleep(500 * time.Millisecond)
	what := "it went on"
	if !c.pg.Alive() {
		what = "it ended over that, started again"
		c.revive()
	}
	c.donef(harmDisk, from, "%s", what)
}
