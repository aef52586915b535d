package main

import (
	"context"
	"fmt"
)

type benchScalingCommand struct {
	benchOutput

	Instances []int `default:"1,2,4" help:"How many instances, a series each."`
	Events    int   `default:"50000" help:"Events a run."`
	Runs      int   `default:"3" help:"Runs of each; the median counts."`
}

// Run delivers the same load with one instance and with several on one PostgreSQL.
func (c benchScalingCommand) Run(ctx context.Context) error {
	deliveries := benchDeliveriesCommand{Events: c.Events, Runs: c.Runs, Publishers: 500, Endpoints: 50}
	rep := c.newReport("scaling", "", "deliveries/s", "CPU-s per 1,000", "of it serve", "accepting", "PostgreSQL", "serve, peak MiB", "p50 ms", "p95 ms", "p99 ms")
	for _, n := range c.Instances {
		name := fmt.Sprintf("%d instances, ", n)
		if n == 1 {
			name = "1 instance, "
		}
		if _, err := deliveries.median(ctx, rep, n, name); err != nil {
			return err
		}
	}
	rep.notef("All on one machine: what more instances cost there, since they share its cores with PostgreSQL, the publishers and the receiver.")
	return rep.end()
}
