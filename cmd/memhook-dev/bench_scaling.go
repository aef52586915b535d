package main

import (
	"context"
	"time"
)

type benchScalingCommand struct {
	benchOutput

	Instances []int `default:"1,2,4" help:"Numbers of instances; each gets a series of runs."`
	Events    int   `default:"50000" help:"Events per run."`
	Runs      int   `default:"3" help:"Runs per series; the median is reported."`
}

// Run delivers the same load with one instance and with several, on one PostgreSQL.
func (c benchScalingCommand) Run(ctx context.Context) error {
	deliveries := benchDeliveriesCommand{Events: c.Events, Runs: c.Runs, Publishers: 500, Apps: 1, Hosts: 50, Within: time.Minute}
	rep := c.newReport("scaling", deliveryHead...)
	for _, n := range c.Instances {
		load := deliveries.load("0s", 50)
		load.instances = n
		runs, _, err := deliveries.measure(ctx, load, plural(n, "instance")+", ")
		if err != nil {
			return err
		}
		deliveryRow(rep, plural(n, "instance"), runs, nil)
	}
	rep.notef("All on one machine, whose cores the instances share with PostgreSQL, the publishers and the receiver: " +
		"here more instances only cost.")
	return rep.end()
}
