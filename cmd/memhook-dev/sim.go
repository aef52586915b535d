package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"github.com/memhook/memhook/cmd/internal/app"
	"github.com/memhook/memhook/memories/memoriestest"
)

type simCommand struct {
	Addr              string        `default:"127.0.0.1:9100" help:"Address to listen on."`
	RequestsPerSecond float64       `default:"1" help:"Rate limit of each account (each API key is one); 0 for none."`
	Median            time.Duration `default:"20s" help:"Median time until a task that was not scripted is ready."`
	Sigma             float64       `default:"1" help:"Spread of that time: the standard deviation of its logarithm."`
	Never             float64       `default:"0" help:"Share of tasks that are never ready."`
	Unknown           string        `enum:"draw,refuse" default:"draw" help:"How to treat task ids that nobody uploaded or scripted: ${enum}."`
	Seed              uint64        `default:"1" help:"Seed of the random draws."`
}

// Run simulates memories.ai until SIGINT or SIGTERM.
func (c simCommand) Run(ctx context.Context) error {
	cfg := memoriestest.Config{RequestsPerSecond: c.RequestsPerSecond, Seed: c.Seed}
	if c.Unknown == "draw" {
		cfg.Draw = func(r *rand.Rand) (time.Duration, int) {
			if r.Float64() < c.Never {
				return 0, 0
			}
			return time.Duration(float64(c.Median) * math.Exp(c.Sigma*r.NormFloat64())), 1
		}
	}
	sim := memoriestest.New(cfg)
	defer sim.Close()
	listener, err := net.Listen("tcp", c.Addr)
	if err != nil {
		return err
	}
	fmt.Printf("simulated memories.ai at http://%s; set MEMORIES_BASE_URL to this URL\n", listener.Addr())
	mux := http.NewServeMux()
	mux.Handle("/", sim)
	mux.HandleFunc("GET /readyz", func(http.ResponseWriter, *http.Request) {})
	return app.ServeUntil(ctx, listener, mux)
}
