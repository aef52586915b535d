package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"github.com/memhook/memhook/memories/memoriestest"
)

type simCommand struct {
	Addr              string        `default:"127.0.0.1:9100" help:"Where to listen."`
	RequestsPerSecond float64       `default:"1" help:"The limit of each account (each API key is one); 0 for none."`
	Median            time.Duration `default:"20s" help:"Half of the tasks that nobody scripted are ready after so long."`
	Sigma             float64       `default:"1" help:"The spread of that time: the standard deviation of its logarithm."`
	Never             float64       `default:"0" help:"The share of tasks that are never ready."`
	Unknown           string        `enum:"draw,refuse" default:"draw" help:"What becomes of task ids that nobody uploaded or scripted: ${enum}."`
	Seed              uint64        `default:"1" help:"Of the draws."`
}

// Run simulates memories.ai until a signal comes.
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
	fmt.Printf("simulated memories.ai at http://%s; set MEMORIES_BASE_URL to it\n", listener.Addr())
	mux := http.NewServeMux()
	mux.Handle("/", sim)
	mux.HandleFunc("GET /readyz", func(http.ResponseWriter, *http.Request) {})
	return serveUntil(ctx, listener, mux)
}

// serveUntil serves HTTP until ctx ends.
func serveUntil(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return server.Close()
	}
}
