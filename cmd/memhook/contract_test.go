package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/memhook/memhook/memories/memoriestest"
)

// A client that oapi-codegen makes of the served document compiles, drives every operation, and every answer
// is as the document says. The driver is a module of its own, so that its libraries are not the product's.
func TestAGeneratedClientDrivesEveryOperation(t *testing.T) {
	t.Parallel()
	b := newBench(t, memoriestest.Config{})
	b.fast()
	in := b.start("")
	resp, err := http.Get(in.url + "/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	document, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file, client, overlay := filepath.Join(dir, "openapi.json"), filepath.Join(dir, "client.go"), filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, closed(t, document), 0o600); err != nil {
		t.Fatal(err)
	}
	generate := exec.Command("go", "tool", "-modfile=../../tools.mod", "oapi-codegen", "-generate", "types,client", "-package", "main", "-o", client, file)
	if out, err := generate.CombinedOutput(); err != nil {
		t.Fatalf("oapi-codegen: %v: %s", err, out)
	}
	module, err := filepath.Abs("testdata/contract")
	if err != nil {
		t.Fatal(err)
	}
	replace, _ := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(module, "client.gen.go"): client}})
	if err := os.WriteFile(overlay, replace, 0o600); err != nil {
		t.Fatal(err)
	}
	b.sim.Add(readyAfter("contract-task", 0, "PI-1"))
	b.sim.Add(memoriestest.Task{TaskID: "never"})
	drive := exec.Command("go", "run", "-overlay", overlay, ".")
	drive.Dir = module
	drive.Env = append(os.Environ(), "BASE="+in.url, "DOCUMENT="+file, "API_KEY="+testAPIKey, "ADMIN_TOKEN="+testAdminToken, "CALLBACK="+b.receiver.URL)
	out, err := drive.CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	t.Log(strings.TrimSpace(string(out)))
}

// closed returns the document with answers that have no members beside those that it names. Clients must bear more; this
// version must not have them.
func closed(t *testing.T, document []byte) []byte {
	t.Helper()
	var doc map[string]any
	if err := json.Unmarshal(document, &doc); err != nil {
		t.Fatal(err)
	}
	components, _ := doc["components"].(map[string]any)
	schemas, _ := components["schemas"].(map[string]any)
	for _, s := range schemas {
		if object, _ := s.(map[string]any); object["properties"] != nil {
			object["additionalProperties"] = false
		}
	}
	out, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
