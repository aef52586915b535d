package main

type benchCommand struct {
	Polling       benchPollingCommand       `cmd:"" help:"Compare polling policies on virtual time."`
	Deliveries    benchDeliveriesCommand    `cmd:"" help:"Accept and deliver events: rate, CPU, latency."`
	Registrations benchRegistrationsCommand `cmd:"" help:"Register tasks over HTTP: rate, CPU, latency."`
	Polls         benchPollsCommand         `cmd:"" help:"Poll many accounts at once: rate, CPU, table sizes."`
	Scaling       benchScalingCommand       `cmd:"" help:"Deliver with one instance and with several."`
	Outpost       benchOutpostCommand       `cmd:"" help:"Measure a running Hookdeck Outpost in the same way."`
	Soak          benchSoakCommand          `cmd:"" help:"Load everything for an hour and watch what must not grow."`
	Sink          sinkCommand               `cmd:"" hidden:"" help:"The receiver of the benchmarks."`
}
