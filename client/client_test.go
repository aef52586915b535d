package client_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/memhook/memhook/api"
)

// The client is made of the document, so that it cannot drift.
func TestTheClientIsCurrent(t *testing.T) {
	t.Parallel()
	document, err := api.OpenAPI("")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "client.go")
	generate := exec.Command("go", "tool", "-modfile=../tools.mod", "oapi-codegen", "-config", "oapi-codegen.yaml", "-o", path, "/dev/stdin")
	generate.Stdin = bytes.NewReader(document)
	if out, err := generate.CombinedOutput(); err != nil {
		t.Fatalf("oapi-codegen: %v: %s", err, out)
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile("client.gen.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, want) {
		t.Error("client.gen.go is behind the API: run make generate")
	}
}
