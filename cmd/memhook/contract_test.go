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
// is as the document says.
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
	in.driveWith(withMembers(t, document, false), "")
}

// A client made of the first version's document still works against this one: every operation that it has, but one that is
// gone, answers as that document says. Answers may have more members, as the contract permits.
func TestAClientOfTheFirstVersionStillWorks(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile("testdata/first/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, memoriestest.Config{})
	b.fast()
	b.start("").driveWith(withMembers(t, document, true), "testdata/first/since.go")
}

// driveWith makes a client of a document and drives the instance with it. The driver is a module of its own, so that its
// libraries are not the product's; since replaces its file for what another version does otherwise.
func (in *instance) driveWith(document []byte, since string) {
	t := in.t
	t.Helper()
	dir := t.TempDir()
	file, client, overlay := filepath.Join(dir, "openapi.json"), filepath.Join(dir, "client.go"), filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, document, 0o600); err != nil {
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
	replaced := map[string]string{filepath.Join(module, "client.gen.go"): client}
	if since != "" {
		if replaced[filepath.Join(module, "since.go")], err = filepath.Abs(since); err != nil {
			t.Fatal(err)
		}
	}
	replace, _ := json.Marshal(map[string]any{"Replace": replaced})
	if err := os.WriteFile(overlay, replace, 0o600); err != nil {
		t.Fatal(err)
	}
	in.sim.Add(readyAfter("contract-task", 0, "PI-1"))
	in.sim.Add(memoriestest.Task{TaskID: "never"})
	drive := exec.Command("go", "run", "-overlay", overlay, ".")
	drive.Dir = module
	drive.Env = append(os.Environ(), "BASE="+in.url, "DOCUMENT="+file, "API_KEY="+testAPIKey, "ADMIN_TOKEN="+testAdminToken, "CALLBACK="+in.receiver.URL)
	out, err := drive.CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	t.Log(strings.TrimSpace(string(out)))
}

// withMembers returns the document with answers that may have members beside those that it names, or that may not. Clients
// must bear more; a version must not have more than its own document says.
func withMembers(t *testing.T, document []byte, more bool) []byte {
	t.Helper()
	var doc map[string]any
	if err := json.Unmarshal(document, &doc); err != nil {
		t.Fatal(err)
	}
	components, _ := doc["components"].(map[string]any)
	schemas, _ := components["schemas"].(map[string]any)
	for _, s := range schemas {
		if object, _ := s.(map[string]any); object["properties"] != nil {
			object["additionalProperties"] = more
		}
	}
	out, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
