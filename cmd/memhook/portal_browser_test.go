package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// A customer opens the link, sees what has failed, sends it again, reads the secret and rotates it; on a screen and on a phone, in
// light and in dark, with nothing for axe-core to find.
func TestThePortalInABrowser(t *testing.T) {
	t.Parallel()
	p := newPortalBench(t)
	p.receiver.answers(func(_ int, got received) int {
		if got.task.TaskID == "order-7" {
			return http.StatusInternalServerError
		}
		return http.StatusNoContent
	})
	for i := range 12 {
		p.registerAt(fmt.Sprintf("order-%d", i), p.receiver.URL+"/mine?order="+fmt.Sprint(i))
	}
	p.receiver.await(t, 12, 20*time.Second)
	b := newBrowser(t, p.url)
	dir := os.Getenv("MEMHOOK_SCREENSHOTS")
	if dir == "" {
		dir = t.ArtifactDir()
	}
	axe, err := os.ReadFile(filepath.Join(nodeModules(t), "node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	look := func(name string) {
		t.Helper()
		for _, width := range []int64{1440, 390} {
			b.do(chromedp.EmulateViewport(width, 900))
			for _, dark := range []bool{false, true} {
				b.dark(dark)
				b.picture(filepath.Join(dir, fmt.Sprintf("portal-%s-%d-%s.png", name, width, map[bool]string{true: "dark", false: "light"}[dark])))
			}
			if wide := b.eval(`document.documentElement.scrollWidth > document.documentElement.clientWidth`); wide == "true" {
				t.Errorf("%s is wider than %d pixels", name, width)
			}
			for _, fault := range b.layoutFaults() {
				t.Errorf("%s at %d pixels: %s", name, width, fault)
			}
		}
		for _, dark := range []bool{false, true} {
			b.dark(dark)
			b.eval(`document.querySelectorAll("details").forEach(d => d.open = true)`)
			for _, v := range b.violations(string(axe)) {
				t.Errorf("%s: %s", name, v)
			}
		}
	}
	click := func(text string) {
		t.Helper()
		b.do(chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`[...document.querySelectorAll("main a, main button, nav a")].find(x => x.textContent.startsWith(%q)).click()`, text)))
	}

	b.open(strings.TrimPrefix(p.portal(testAPIKey, p.mine).URL, p.url))
	b.awaitShown("order-9")
	if at := b.eval(`location.href`); at != p.url+"/portal/"+p.mine+"/" {
		t.Errorf("the link leads to %s", at)
	}
	if seen := b.eval(`document.cookie`); seen != "" {
		t.Errorf("scripts see the cookie %s", seen)
	}
	look("deliveries")
	b.open("/portal/" + p.mine + "/?status=failed")
	click("task.ready")
	b.awaitShown("Attempt 1 failed")
	look("delivery")
	b.open("/portal/" + p.mine + "/deliveries/" + p.myDelivery)
	b.press("Resend")
	b.awaitShown("Attempt 2 delivered")

	click("Secret")
	b.awaitShown("Reveal the secret")
	click("Reveal")
	b.awaitShown("Hide")
	secret := func() string {
		var out struct{ Secret string }
		p.call(http.MethodGet, "/v1/endpoints/"+p.mine+"/secret", nil, &out)
		return out.Secret
	}
	before := secret()
	b.awaitShown(before)
	look("secret")
	b.open("/portal/" + p.mine + "/secret")
	b.press("Rotate")
	b.awaitShown("The secret was rotated")
	if after := secret(); after == before {
		t.Error("the secret was not rotated")
	}
	look("rotated")
	p.exec(`update api_keys set revoked_at = now()`)
	b.open("/portal/" + p.mine + "/")
	b.awaitShown("This link does not work any more")
	look("closed")
	b.clean()
}

// Without JavaScript the portal's forms work too.
func TestThePortalWithoutJavaScript(t *testing.T) {
	t.Parallel()
	p := newPortalBench(t)
	b := newBrowser(t, p.url)
	if _, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		t.Fatal(err)
	}
	b.open(strings.TrimPrefix(p.portal(testAPIKey, p.mine).URL, p.url))
	b.do(chromedp.Click(chromedp.CSS("#list tbody a")), chromedp.WaitVisible(chromedp.CSS("form[action$='/resend'] button")))
	b.leave(chromedp.Click(chromedp.CSS("form[action$='/resend'] button")))
	p.receiver.await(t, 1, 10*time.Second)
	b.open("/portal/" + p.mine + "/")
	b.do(chromedp.Click(chromedp.CSS("details summary")))
	b.leave(chromedp.Click(chromedp.CSS("form[action$='/recover'] button")))
	b.open("/portal/" + p.mine + "/secret")
	b.do(chromedp.Click(chromedp.CSS("form[action$='/secret'] button")), chromedp.WaitVisible(chromedp.CSS("#secret")))
	if text := b.bodyText(); !strings.Contains(text, "whsec_") {
		t.Errorf("no secret is revealed:\n%s", text)
	}
	b.stayedHome()
}
