// Command memhook turns memories.ai's poll-only task status into signed webhooks. Each command is a
// short file beside this one.
package main

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

// Exit statuses.
const (
	exitFailure = 1
	exitUsage   = 2 // a missing or bad setting or flag
)

type commands struct {
	Serve   serveCommand   `cmd:"" help:"Run the API and the workers."`
	Migrate migrateCommand `cmd:"" help:"Change or show the database's schema."`
	Demo    demoCommand    `cmd:"" help:"Show the whole bridge with nothing configured."`
	Bench   benchCommand   `cmd:"" help:"Measure."`
	Sim     simCommand     `cmd:"" help:"Run the simulated memories.ai alone."`
	Listen  listenCommand  `cmd:"" help:"Receive, verify and print webhooks."`
	Version versionCommand `cmd:"" help:"Print the version."`

	Doctor     doctorCommand     `cmd:"" help:"Examine settings, database, keys, memories.ai and the way out; say what to do."`
	Health     healthCommand     `cmd:"" help:"Ask the memhook of this machine whether it is ready."`
	RotateKeys rotateKeysCommand `cmd:"" help:"Seal all secrets anew with the first key of MEMHOOK_ENCRYPTION_KEY."`
	OpenAPI    openAPICommand    `cmd:"" name:"openapi" help:"Print the OpenAPI document."`
}

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	if len(args) == 1 && args[0] == "help" {
		args = []string{"--help"}
	}
	var cmds commands
	parser, err := kong.New(&cmds, kong.Name("memhook"),
		kong.Description("Turns memories.ai's poll-only task status into signed webhooks.\n\nSettings come from the environment:\n\n"+settingsHelp()),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}), kong.UsageOnError())
	if err != nil {
		fmt.Fprintln(os.Stderr, "memhook:", err)
		return exitFailure
	}
	command, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "memhook: %s\nTry: memhook --help\n", err)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	command.BindTo(ctx, (*context.Context)(nil))
	err = command.Run()
	switch {
	case err == nil:
		return 0
	case errors.As(err, new(settingErrors)):
		fmt.Fprintln(os.Stderr, err)
		return exitUsage
	default:
		fmt.Fprintln(os.Stderr, "memhook:", err)
		return exitFailure
	}
}

type versionCommand struct{}

// Run prints the version.
func (versionCommand) Run() error {
	_, err := fmt.Println("memhook", version())
	return err
}

// release is set by the linker in released binaries.
var release string

// version is the released version, or the module's or commit's.
func version() string {
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
