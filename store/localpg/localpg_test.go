package localpg_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/memhook/memhook/store/localpg"
)

// A private server is reached where its URL says, whatever other server the environment names.
func TestTheEnvironmentNamesAnotherServer(t *testing.T) {
	t.Setenv("PGPORT", "54999")
	server, err := localpg.Start(t.Context(), localpg.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	conn, err := pgx.Connect(t.Context(), server.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close(t.Context())
}
