// Command memhook turns memories.ai's poll-only task status into signed webhooks. Each command has a file
// of its own in this directory.
package main

import (
	"fmt"
	"os"

	"github.com/alecthomas/kong"

	"github.com/memhook/memhook/api"
	"github.com/memhook/memhook/cmd/internal/app"
)

type commands struct {
	Serve      serveCommand      `cmd:"" help:"Run the API and the workers."`
	Migrate    migrateCommand    `cmd:"" help:"Change or show the database schema."`
	Doctor     doctorCommand     `cmd:"" help:"Check the settings, the database, the keys, memories.ai and outgoing connections; suggest remedies."`
	RotateKeys rotateKeysCommand `cmd:"" help:"Encrypt all keys and secrets again with the first key of MEMHOOK_ENCRYPTION_KEY."`
	Health     healthCommand     `cmd:"" help:"Ask the memhook on this machine whether it is ready."`
	OpenAPI    openAPICommand    `cmd:"" name:"openapi" help:"Print the OpenAPI document."`
	Listen     listenCommand     `cmd:"" help:"Receive, verify and print webhooks."`
	Version    versionCommand    `cmd:"" help:"Print the version."`

	Tasks      tasksCommands      `cmd:"" group:"Client of a running memhook (MEMHOOK_URL, MEMHOOK_API_KEY)" help:"Register, show, await and cancel tasks."`
	Deliveries deliveriesCommands `cmd:"" group:"Client of a running memhook (MEMHOOK_URL, MEMHOOK_API_KEY)" help:"Show and resend deliveries."`
	Endpoints  endpointsCommands  `cmd:"" group:"Client of a running memhook (MEMHOOK_URL, MEMHOOK_API_KEY)" help:"Show, test and recover endpoints."`
	Events     eventsCommands     `cmd:"" group:"Client of a running memhook (MEMHOOK_URL, MEMHOOK_API_KEY)" help:"Follow what happens."`

	VersionFlag kong.VersionFlag `name:"version" help:"Print the version."`
}

func main() {
	const what = "Turns memories.ai's poll-only task status into signed webhooks.\n\n"
	os.Exit(app.Main("memhook", what+app.SettingsHelp(), &commands{}, os.Args[1:]))
}

type versionCommand struct{}

// Run prints the version.
func (versionCommand) Run() error {
	_, err := fmt.Println("memhook", app.Version())
	return err
}

type openAPICommand struct{}

// Run prints the document that a running memhook serves at /openapi.json.
func (openAPICommand) Run() error {
	doc, err := api.OpenAPI(app.Version())
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(append(doc, '\n'))
	return err
}
