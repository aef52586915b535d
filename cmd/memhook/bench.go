package main

type benchCommand struct {
	Polling benchPollingCommand `cmd:"" help:"Compare polling policies on virtual time."`
}
