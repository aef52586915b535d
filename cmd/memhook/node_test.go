package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/memhook/memhook/webhook"
)

// nodeCheck is one webhook for npm's standardwebhooks to verify.
type nodeCheck struct {
	Secret  string            `json:"secret"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
}

func checkWithNode(secret string, got received) nodeCheck {
	headers := make(map[string]string)
	for _, name := range []string{webhook.HeaderID, webhook.HeaderTimestamp, webhook.HeaderSignature} {
		headers[name] = got.header.Get(name)
	}
	return nodeCheck{secret, headers, string(got.body)}
}

// verifyWithNode checks webhooks with npm's standardwebhooks.
func verifyWithNode(t *testing.T, checks []nodeCheck) {
	t.Helper()
	raw, err := json.Marshal(checks)
	if err != nil {
		t.Fatal(err)
	}
	script := `const { Webhook } = require("standardwebhooks");
const checks = JSON.parse(require("fs").readFileSync(0, "utf8"));
for (const c of checks) new Webhook(c.secret).verify(c.body, c.headers);
console.log(checks.length);`
	run := exec.CommandContext(t.Context(), "node", "-e", script)
	run.Dir = nodeModules(t)
	run.Stdin = bytes.NewReader(raw)
	out, err := run.CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != strconv.Itoa(len(checks)) {
		t.Errorf("npm's library: %v: %s", err, out)
	}
}

var nodeOnce sync.Once

// nodeModules gives a folder with the npm packages that tests use, installed once a run.
func nodeModules(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(filepath.Dir(binary), "node")
	nodeOnce.Do(func() {
		install := exec.Command("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", dir, "standardwebhooks@1", "axe-core@4",
			"typescript@5", "openapi-typescript@7", "@types/node@20", "express@5")
		if out, err := install.CombinedOutput(); err != nil {
			t.Errorf("npm install (install Node.js and npm to run this test): %v: %s", err, out)
		}
	})
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	return dir
}
