package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"github.com/memhook/memhook/memories/memoriestest"
)

// browser is a real one, signed in to the dashboard of an instance. It notes requests to other hosts and
// violations of the content security policy.
type browser struct {
	t   *testing.T
	ctx context.Context
	url string

	mu     sync.Mutex
	abroad []string
}

func newBrowser(t *testing.T, base string) *browser {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.NoSandbox, chromedp.DisableGPU, chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.WSURLReadTimeout(time.Minute))
	allocated, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(allocated)
	t.Cleanup(cancel)
	ctx, done := context.WithTimeout(ctx, 4*time.Minute)
	t.Cleanup(done)
	b := &browser{t: t, ctx: ctx, url: base}
	home, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Listen(ctx, func(ev any) {
		if sent, ok := ev.(*network.EventRequestWillBeSent); ok {
			if u, err := url.Parse(sent.Request.URL); err != nil || (u.Host != home.Host && u.Scheme != "data") {
				b.mu.Lock()
				b.abroad = append(b.abroad, sent.Request.URL)
				b.mu.Unlock()
			}
		}
	}); err != nil {
		t.Fatalf("chromium (install Debian's package chromium to run this test): %v", err)
	}
	_, err = chromedp.Call(ctx, network.Enable, network.EnableParams{})
	if err == nil {
		_, err = chromedp.Call(ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{
			Source: `document.addEventListener("securitypolicyviolation", e => { sessionStorage.violations = (sessionStorage.violations || "") + e.violatedDirective + " " + e.blockedURI + " at " + location.pathname + "\n" })`,
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	b.do(chromedp.EmulateViewport(1280, 900))
	return b
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		where, _ := chromedp.Run(b.ctx, chromedp.Location())
		b.t.Fatalf("at %s: %v", where, err)
	}
}

func (b *browser) eval(script string) string {
	b.t.Helper()
	out, err := chromedp.Run(b.ctx, chromedp.Evaluate[string]("String("+script+")"))
	if err != nil {
		b.t.Fatalf("%s: %v", script, err)
	}
	return out
}

// open loads a page; the session leads to it.
func (b *browser) open(path string) { b.t.Helper(); b.do(chromedp.Navigate(b.url + path)) }

func (b *browser) signIn() { b.t.Helper(); b.signInWith(testAdminToken) }

func (b *browser) signInWith(token string) {
	b.t.Helper()
	b.open("/admin/tasks") // it leads to the form, and the form back
	b.do(chromedp.SendKeys(chromedp.CSS("input[name=token]"), token), chromedp.Click(chromedp.CSS("main button")), chromedp.WaitVisible(chromedp.CSS("#list")))
}

// press clicks the button with a text, opening what hides it.
func (b *browser) press(label string) {
	b.t.Helper()
	b.leave(chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`(() => { const button = [...document.querySelectorAll("main button")].find(x => x.textContent.startsWith(%q)); if (!button) throw new Error("no button %s"); const d = button.closest("details"); if (d) d.open = true; button.click(); })()`, label, label)))
}

// leave does what leads to another page, and waits until that is there and says what was done.
func (b *browser) leave(step chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if _, err := chromedp.RunResponse(b.ctx, step); err != nil {
		b.t.Fatal(err)
	}
	b.do(chromedp.WaitVisible(chromedp.CSS(".flash")))
}

// awaitText waits until the page shows something.
func (b *browser) awaitText(what string, ok func(string) bool) {
	b.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		text, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.body ? document.body.innerText : ""`))
		if err == nil && ok(text) {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("the page never shows %s:\n%s", what, text)
		}
	}
}

func (b *browser) awaitShown(want string) {
	b.t.Helper()
	b.awaitText(want, func(text string) bool { return strings.Contains(text, want) })
}

// clean tells that the browser asked nobody else and that no policy was violated.
func (b *browser) clean() {
	b.t.Helper()
	if v := b.eval(`sessionStorage.violations || ""`); v != "" {
		b.t.Errorf("violations of the content security policy:\n%s", v)
	}
	b.stayedHome()
}

// stayedHome tells that the browser asked nobody else.
func (b *browser) stayedHome() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.abroad) > 0 {
		b.t.Errorf("requests to other hosts: %v", b.abroad)
	}
}

// dark chooses the colour scheme.
func (b *browser) dark(on bool) {
	b.t.Helper()
	scheme := map[bool]string{true: "dark", false: "light"}[on]
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}); err != nil {
		b.t.Fatal(err)
	}
}

// dashboardBench is an instance with something of everything.
func dashboardBench(t *testing.T) (in *instance, task taskJSON, delivery, app string) {
	t.Helper()
	b := newBench(t, memoriestest.Config{})
	b.fast()
	in = b.start("")
	b.sim.Add(readyAfter("first", 0, "PI-1"))
	task = in.register("first", map[string]any{"metadata": map[string]string{"order": "42"}})
	b.sim.Add(memoriestest.Task{TaskID: "never"})
	in.register("never", nil)
	b.receiver.await(t, 1, 20*time.Second)
	var list struct{ Data []struct{ ID string } }
	in.call(http.MethodGet, "/v1/deliveries", nil, &list)
	app, _, _ = in.newApp("second")
	return in, task, list.Data[0].ID, app
}

// pages are all of the dashboard's, but River's.
func pages(in *instance, task taskJSON, delivery, app string) []string {
	var accounts struct{ Data []struct{ ID string } }
	in.admin(http.MethodGet, "/admin/v1/accounts", nil, &accounts)
	upload := in.upload("page", videoURL("page")).ID
	return []string{
		"/admin/", "/admin/uploads", "/admin/uploads/" + upload, "/admin/tasks", "/admin/tasks/" + task.ID, "/admin/deliveries", "/admin/deliveries/" + delivery, "/admin/endpoints",
		"/admin/endpoints/" + task.Subscriptions[0].EndpointID, "/admin/accounts", "/admin/accounts/" + accounts.Data[0].ID, "/admin/apps", "/admin/apps/" + app,
		"/admin/search?q=first", "/admin/audit", "/admin/resends/new?action=resend&status=delivered", "/admin/nothing-here",
	}
}

func TestTheDashboardInABrowser(t *testing.T) {
	t.Parallel()
	in, task, delivery, app := dashboardBench(t)
	b := newBrowser(t, in.url)
	b.signIn()

	// A task goes from waiting to delivered while one looks, without a reload.
	in.sim.Add(readyAfter("watched", 4*time.Second, "PI-7"))
	watched := in.register("watched", nil)
	b.open("/admin/tasks/" + watched.ID)
	b.eval(`window.same = true`)
	b.awaitShown("waiting")
	b.awaitShown("task.ready")
	b.awaitShown("Attempt 1 of task.ready delivered")
	if b.eval(`window.same`) != "true" {
		t.Error("the page was loaded again")
	}

	// Resend shows a new attempt.
	b.open("/admin/deliveries/" + delivery)
	b.press("Resend")
	b.awaitShown("Attempt 2 delivered")

	// Disable and enable an endpoint.
	ep := task.Subscriptions[0].EndpointID
	b.open("/admin/endpoints/" + ep)
	b.press("Disable")
	b.awaitShown("disabled by request")
	b.open("/admin/endpoints/" + ep)
	b.press("Enable")
	b.awaitText("enabled again", func(text string) bool { return !strings.Contains(text, "disabled by request") })

	// Recover, with progress.
	in.receiver.answers(func(int, received) int { time.Sleep(30 * time.Millisecond); return http.StatusNoContent })
	in.seed(in.receiver.URL+"/", 400, "failed")
	b.open("/admin/endpoints/" + ep)
	b.press("Recover")
	b.awaitShown("of 400 sent")
	b.awaitShown("400 of 400 sent, 0 waiting")

	b.open("/admin/")
	b.awaitShown("tasks waiting")
	b.open("/admin/jobs/")
	b.awaitShown("Completed")
	b.clean()

	dir := os.Getenv("MEMHOOK_SCREENSHOTS")
	if dir == "" {
		dir = t.ArtifactDir()
	}
	b.screenshots(dir, pages(in, task, delivery, app))
	b.clean()
}

// picture keeps a picture of the whole page.
func (b *browser) picture(file string) {
	b.t.Helper()
	// A change of the window's size is drawn first.
	b.do(chromedp.Evaluate[chromedp.Void](`new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(() => drawn())))`, chromedp.EvalAwaitPromise))
	picture, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(file, picture, 0o644)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// screenshots keeps pictures of pages at two widths.
func (b *browser) screenshots(dir string, paths []string) {
	b.t.Helper()
	for _, path := range paths {
		for _, width := range []int64{1280, 390} {
			b.do(chromedp.EmulateViewport(width, 900))
			b.open(path)
			parts := strings.Split(strings.Trim(strings.TrimPrefix(path, "/admin/"), "/"), "/")
			name := parts[0]
			if name == "" {
				name = "overview"
			} else if len(parts) > 1 {
				name = strings.TrimSuffix(name, "s")
			}
			b.picture(filepath.Join(dir, fmt.Sprintf("%s-%d.png", name, width)))
			// Nothing is wider than the screen.
			if wide := b.eval(`document.documentElement.scrollWidth > document.documentElement.clientWidth`); wide == "true" {
				b.t.Errorf("%s is wider than %d pixels", path, width)
			}
		}
	}
	b.do(chromedp.EmulateViewport(1280, 900))
}

// Without JavaScript every page shows its content and every form works.
func TestTheDashboardWithoutJavaScript(t *testing.T) {
	t.Parallel()
	in, task, delivery, app := dashboardBench(t)
	b := newBrowser(t, in.url)
	if _, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		t.Fatal(err)
	}
	b.signIn()
	for path, want := range map[string]string{
		"/admin/": "Endpoints in trouble", "/admin/tasks?task_id=first": "first", "/admin/tasks/" + task.ID: "Registered", "/admin/deliveries": "task.ready",
		"/admin/deliveries/" + delivery: "Attempt 1 delivered", "/admin/endpoints": in.receiver.URL, "/admin/accounts": "default", "/admin/apps": "second", "/admin/apps/" + app: "API keys",
	} {
		b.open(path)
		if text := b.bodyText(); !strings.Contains(text, want) {
			t.Errorf("%s does not show %q:\n%s", path, want, text)
		}
	}
	click := func(selector string) { b.t.Helper(); b.leave(chromedp.Click(chromedp.CSS(selector))) }
	b.open("/admin/deliveries/" + delivery)
	click("form[action$='/resend'] button")
	in.receiver.await(t, 2, 10*time.Second)
	b.open("/admin/endpoints/" + task.Subscriptions[0].EndpointID)
	b.do(chromedp.Click(chromedp.CSS("details:has(form[action$='/disable']) summary")))
	click("form[action$='/disable'] button")
	if text := b.bodyText(); !strings.Contains(text, "disabled by request") {
		t.Errorf("the endpoint is not disabled:\n%s", text)
	}
	click("form[action$='/enable'] button")
	b.open("/admin/accounts")
	b.do(chromedp.SendKeys(chromedp.CSS("input[name=name]"), "third"), chromedp.SendKeys(chromedp.CSS("input[name=api_key]"), "sk-mavi-third"))
	click("form[action='/admin/accounts'] button")
	b.open("/admin/apps/" + app)
	b.do(chromedp.SendKeys(chromedp.CSS("form[action$='/keys'] input[name=name]"), "laptop"))
	click("form[action$='/keys'] button")
	key, err := chromedp.Run(b.ctx, chromedp.AttributeValue(chromedp.CSS("input.key"), "value"))
	if err != nil || in.callWith(key.Value, http.MethodGet, "/v1/tasks", nil, nil) != http.StatusOK {
		t.Errorf("the new key %q does not work: %v", key.Value, err)
	}
	b.do(chromedp.Click(chromedp.CSS("details:has(form[action$='/revoke']) summary")))
	click("form[action$='/revoke'] button")
	b.do(chromedp.Click(chromedp.CSS("form[action='/admin/sign-out'] button")), chromedp.WaitVisible(chromedp.CSS("input[name=token]")))
	b.stayedHome()
}

// bodyText reads the page through the protocol, as scripts are off.
func (b *browser) bodyText() string {
	b.t.Helper()
	text, err := chromedp.Run(b.ctx, chromedp.Text(chromedp.CSS("body")))
	if err != nil {
		b.t.Fatal(err)
	}
	return text
}
