// Package app holds what memhook and memhook-dev share: the frame of a program, the settings, and a
// running instance of the service.
package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"
)

// The exit statuses of a program.
const (
	exitFailure = 1
	ExitUsage   = 2 // a missing or bad setting or flag
)

// ExitError is an error of a command that ends the program with an exit status of its own.
type ExitError struct {
	Status int
	Err    error
}

// Error returns the text of the error.
func (e ExitError) Error() string { return e.Err.Error() }

// Main parses args into cmds, runs the command that they name, and returns the exit status: 0, 1 or that of an
// [ExitError] if the command failed, or 2 if a flag or a setting is missing or wrong. Without args, and for the
// command help, it prints the help. SIGINT and SIGTERM cancel the context that the command's Run method gets.
func Main(name, description string, cmds any, args []string) int {
	if len(args) == 0 {
		args = []string{"--help"}
	}
	if args[0] == "help" {
		args = append(args[1:len(args):len(args)], "--help")
	}
	parser, err := kong.New(cmds, kong.Name(name), kong.Description(description), kong.Vars{"version": name + " " + Version()},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}), kong.UsageOnError())
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s\n", name, err)
		return exitFailure
	}
	command, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s\nTry: %s --help\n", name, err, name)
		return ExitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	command.BindTo(ctx, (*context.Context)(nil))
	err = command.Run()
	exit, ok := errors.AsType[ExitError](err)
	switch {
	case err == nil:
		return 0
	case ok:
		fmt.Fprintf(os.Stderr, "%s: %s\n", name, err)
		return exit.Status
	case errors.As(err, new(SettingErrors)):
		fmt.Fprintln(os.Stderr, err)
		return ExitUsage
	default:
		fmt.Fprintf(os.Stderr, "%s: %s\n", name, err)
		return exitFailure
	}
}

// release is the version of a released binary. The linker sets it.
var release string

// Version returns the version of this binary: the released one, or else the module's or the commit's.
func Version() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return "dev-" + s.Value[:min(len(s.Value), 12)]
		}
	}
	return "dev"
}
