package main

type benchPageCommand struct{}

func (benchPageCommand) Run() error { return nil }
