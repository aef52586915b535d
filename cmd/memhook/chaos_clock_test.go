package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// skewVariable is the setting of an instance's clock: seconds by which it is ahead.
const skewVariable = "CHAOS_CLOCK_SKEW"

// skewableBinary builds memhook with a clock that can be wrong. Go reads the clock without the C library, so that nothing
// that is preloaded changes it: the binary has a package time of its own, in which Now adds what the environment says.
func skewableBinary(t *testing.T) string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	original := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	return buildOverlaid(t, original, "\tsec, nsec, mono := runtimeNow()\n", "\tsec, nsec, mono := runtimeNow()\n\tsec += skew\n", `
var skew = func() (sec int64) {
	text, _ := syscall.Getenv("`+skewVariable+`")
	behind := len(text) > 0 && text[0] == '-'
	for _, c := range []byte(text) {
		if '0' <= c && c <= '9' {
			sec = 10*sec + int64(c-'0')
		}
	}
	if behind {
		return -sec
	}
	return sec
}()
`)
}

// buildOverlaid builds memhook with one text of a source file replaced and another appended. The file stays as it is.
func buildOverlaid(t *testing.T, original, text, replacement, appended string) string {
	t.Helper()
	dir := t.TempDir()
	raw, err := os.ReadFile(original)
	source := string(raw)
	if err != nil || strings.Count(source, text) != 1 {
		t.Fatalf("%s has the text %d times, want once: %q, %v", original, strings.Count(source, text), text, err)
	}
	source = strings.Replace(source, text, replacement, 1) + appended
	if strings.Contains(appended, "syscall.") {
		source = strings.Replace(source, "import (\n", "import (\n\t\"syscall\"\n", 1)
	}
	changed, overlay, out := filepath.Join(dir, "changed.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "memhook")
	replace, _ := json.Marshal(map[string]any{"Replace": map[string]string{original: changed}})
	if err := os.WriteFile(changed, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(overlay, replace, 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := exec.Command("go", "build", "-overlay", overlay, "-o", out, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, text)
	}
	return out
}

// skewClock lets an instance run with a clock that is wrong, by less or more than what memhook forgives.
func (c *chaos) skewClock(in *chaosInstance) string {
	skew := []int{-40, -20, -3, 3, 20, 40}[c.rand.IntN(6)]
	c.end(in)
	in.skew = skew
	c.start(in)
	c.pause(6, 12)
	if resp, err := http.Get("http://" + in.addr + "/healthz"); err == nil {
		_ = resp.Body.Close()
		said, err := http.ParseTime(resp.Header.Get("Date"))
		if off := time.Until(said).Seconds() - float64(skew); err != nil || off < -2 || off > 2 {
			c.t.Errorf("the clock of %s is not %d s ahead: it says %s", in.addr, skew, resp.Header.Get("Date"))
		}
	}
	c.end(in)
	in.skew = 0
	c.start(in)
	return fmt.Sprintf("%s, by %d s", in.addr, skew)
}
