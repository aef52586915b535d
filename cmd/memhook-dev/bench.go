package main

type benchCommand struct {
	Polling       benchPollingCommand       `cmd:"" help:"Compare polling policies in virtual time."`
	Deliveries    benchDeliveriesCommand    `cmd:"" help:"Measure accepting and delivering events: rate, CPU, latency."`
	Floor         benchFloorCommand         `cmd:"" help:"Measure a delivery beside its floor: a bare signed POST and its rows."`
	Idle          benchIdleCommand          `cmd:"" help:"Measure CPU and memory of an idle service."`
	Registrations benchRegistrationsCommand `cmd:"" help:"Measure registrations over HTTP: rate, CPU, latency."`
	Polls         benchPollsCommand         `cmd:"" help:"Measure polling many accounts: rate, CPU, table sizes."`
	Scaling       benchScalingCommand       `cmd:"" help:"Measure deliveries with one instance and with several."`
	Outpost       benchOutpostCommand       `cmd:"" help:"Measure a running Hookdeck Outpost like memhook."`
	Soak          benchSoakCommand          `cmd:"" help:"Load everything for an hour and watch what must not grow."`
	Page          benchPageCommand          `cmd:"" help:"Draw the charts of docs/benchmarks.md from its tables."`
	Serve         profiledCommand           `cmd:"" hidden:"" help:"Serve as memhook does, and write a CPU profile."`
	Sink          sinkCommand               `cmd:"" hidden:"" help:"Run the receiver of the benchmarks."`
}
