// Command memhook-dev shows and measures memhook: a demo with nothing configured, a simulated memories.ai,
// and the benchmarks. Nothing of it runs in production.
package main

import (
	"os"

	"github.com/alecthomas/kong"

	"github.com/memhook/memhook/cmd/internal/app"
)

type commands struct {
	Demo  demoCommand  `cmd:"" help:"Run all of memhook with nothing configured."`
	Sim   simCommand   `cmd:"" help:"Run a simulated memories.ai."`
	Bench benchCommand `cmd:"" help:"Run a benchmark."`

	VersionFlag kong.VersionFlag `name:"version" help:"Print the version."`
}

func main() {
	os.Exit(app.Main("memhook-dev", "Shows and measures memhook.", &commands{}, os.Args[1:]))
}
