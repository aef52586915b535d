package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/memhook/memhook/api"
	"github.com/memhook/memhook/memories/memoriestest"
)

//go:generate go test -run TestTheTypesOfTheTypeScriptClientAreCurrent . -update

// npx runs a program of the installed npm packages.
func npx(t *testing.T, dir, program string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(nodeModules(t), "node_modules/.bin", program), args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", program, err, out)
	}
}

// The types are made of the document, so that they cannot drift.
func TestTheTypesOfTheTypeScriptClientAreCurrent(t *testing.T) {
	t.Parallel()
	document, err := api.OpenAPI("")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file, types := filepath.Join(dir, "openapi.json"), filepath.Join(dir, "types.ts")
	if err := os.WriteFile(file, document, 0o600); err != nil {
		t.Fatal(err)
	}
	npx(t, dir, "openapi-typescript", file, "--default-non-nullable=false", "-o", types)
	want, err := os.ReadFile(types)
	if err != nil {
		t.Fatal(err)
	}
	path := repository(t, "clients/typescript/src/types.gen.ts")
	if have, _ := os.ReadFile(path); bytes.Equal(have, want) {
		return
	}
	if !*update {
		t.Fatal("clients/typescript/src/types.gen.ts is behind the API: run make generate")
	}
	if err := os.WriteFile(path, want, 0o644); err != nil {
		t.Fatal(err)
	}
}

// The client compiles under the strictest checks, its types refuse mistakes, and it drives every operation of the real binary.
func TestTheTypeScriptClientDrivesEveryOperation(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp(nodeModules(t), "client") // beside the packages that it is compiled with
	if err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(repository(t, "clients/typescript"))); err != nil {
		t.Fatal(err)
	}
	const config = `{"extends": "./tsconfig.json", "compilerOptions": {"rootDir": ".", "types": ["node"], "outDir": "out"}, "include": ["src", "test"]}`
	if err := os.WriteFile(filepath.Join(dir, "tsconfig.test.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	npx(t, dir, "tsc", "-p", "tsconfig.test.json")

	b := newBench(t, memoriestest.Config{})
	b.fast()
	in := b.start("")
	b.sim.Add(readyAfter("ts-task", 0, "PI-1"))
	b.sim.Add(memoriestest.Task{TaskID: "never"})
	document, err := api.OpenAPI("")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "openapi.json")
	if err := os.WriteFile(file, document, 0o600); err != nil {
		t.Fatal(err)
	}
	drive := exec.CommandContext(t.Context(), "node", filepath.Join(dir, "out/test/drive.js"))
	drive.Env = append(os.Environ(), "BASE="+in.url, "API_KEY="+testAPIKey, "ADMIN_TOKEN="+testAdminToken, "CALLBACK="+b.receiver.URL, "DOCUMENT="+file)
	out, err := drive.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Log(strings.TrimSpace(string(out)))
}
