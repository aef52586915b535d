package webhook_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/memhook/memhook/webhook"
)

func TestTargetsHaveOneNormalForm(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"https://h.example/x?name=é":                    "https://h.example/x?name=%C3%A9",
		"https://h.example/é/%2F/x":                     "https://h.example/%C3%A9/%2F/x",
		"https://h.example/x?a=%C3%A9&b=%e9":            "https://h.example/x?a=%C3%A9&b=%e9",
		"https://h.example/%25?b=%2525":                 "https://h.example/%25?b=%2525",
		"HTTP://Host.Example:80/X":                      "http://host.example/X",
		"http://host.example:080/":                      "http://host.example/",
		"HTTPS://Host.Example:443/x":                    "https://host.example/x",
		"https://host.example:0443/x":                   "https://host.example/x",
		"http://host.example:443/x":                     "http://host.example:443/x",
		"https://host.example:08443/x":                  "https://host.example:8443/x",
		"https://host.example.":                         "https://host.example/",
		"https://host.example./x":                       "https://host.example/x",
		"https://host.example?":                         "https://host.example/",
		"https://host.example?a=b":                      "https://host.example/?a=b",
		"https://host.example/?a=b?c=/d":                "https://host.example/?a=b?c=/d",
		"https://host.example//a//b/":                   "https://host.example//a//b/",
		"https://host.example/a/./b/../c":               "https://host.example/a/c",
		"https://host.example/a/b/..":                   "https://host.example/a/",
		"https://host.example/a/%2e%2E/c":               "https://host.example/c",
		"https://host.example/../../x":                  "https://host.example/x",
		"https://host.example/a...b/..c":                "https://host.example/a...b/..c",
		"https://host.example/a;b=c,d:e@f!$&'()*+":      "https://host.example/a;b=c,d:e@f!$&'()*+",
		`https://host.example/"<>^` + "`{|}":            "https://host.example/%22%3C%3E%5E%60%7B%7C%7D",
		`https://host.example/?a[]="<>^` + "`{|}'":      "https://host.example/?a%5B%5D=%22%3C%3E%5E%60%7B%7C%7D'",
		"https://host.example/?a=b+c%20d":               "https://host.example/?a=b+c%20d",
		"https://BÜCHER.example/":                       "https://xn--bcher-kva.example/",
		"https://xn--bcher-kva.example/":                "https://xn--bcher-kva.example/",
		"https://b%C3%BCcher.example/":                  "https://xn--bcher-kva.example/",
		"https://ｅｘａｍｐｌｅ。com/":                          "https://example.com/",
		"https://straße.example/":                       "https://xn--strae-oqa.example/",
		"https://my_service.example/":                   "https://my_service.example/",
		"https://r3---sn.example/":                      "https://r3---sn.example/",
		"https://93.184.215.14:443/":                    "https://93.184.215.14/",
		"https://９３.184.215.14/":                        "https://93.184.215.14/",
		"https://[2606:2800:021F:CB07::0001]/":          "https://[2606:2800:21f:cb07::1]/",
		"https://[2606:2800:21f:cb07::1]:443/x":         "https://[2606:2800:21f:cb07::1]/x",
		"https://[2606:2800:21f:cb07::1]:8443/x":        "https://[2606:2800:21f:cb07::1]:8443/x",
		"https://[::ffff:93.184.215.14]/":               "https://93.184.215.14/",
		"https://host.example/x?u=https://o.example/a/": "https://host.example/x?u=https://o.example/a/",
	} {
		target, err := webhook.ParseTarget(raw)
		if err != nil || target.String() != want {
			t.Errorf("%s: %q %v, want %q", raw, target, err, want)
			continue
		}
		if again, err := webhook.ParseTarget(want); err != nil || again != target {
			t.Errorf("%s: the normal form is not its own: %q %v", raw, again, err)
		}
		if name, _, _ := strings.Cut(want, "?"); target.Endpoint() != name {
			t.Errorf("%s: the endpoint is %q", raw, target.Endpoint())
		}
	}
}

func TestTargetsThatAreNoURLs(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{
		"https://host.example/%zz", "https://host.example/%", "https://host.example/?a=%", "https://host.example/?a=%4", "https://host.example/?a=50%&b",
		"https://host..example/", "https://.example/", "https://-/" + strings.Repeat("é", 400), "https://" + strings.Repeat("a", 64) + ".example/", "https://" + strings.Repeat("abcdefg.", 32) + "example/",
		"https://[fe80::1%25eth0]/", "https://[::g]/", "https://host.example:/", "https://host.example:0/", "https://host.example:65536/", "https://host.example:99999999999/", "https://host.example:-1/",
		"https://a℀b.example/", "https://xn--a.example/", "https://ho<st.example/", "https://ho!st.example/", "https://u@host.example/", "https://@host.example/", "https://host.example/#", "https://ho\tst.example/", "https://host.example/\n",
		"https:host.example/", "https:/host.example/", "https:///x?u=://", "//host.example/", "ftp://host.example/",
	} {
		if target, err := webhook.ParseTarget(raw); err == nil {
			t.Errorf("%q is %q", raw, target)
		}
	}
}

// What a name means after it was mapped counts.
func TestGuardJudgesMappedHosts(t *testing.T) {
	t.Parallel()
	guard := webhook.NewGuard(webhook.Policy{AllowHTTP: true})
	for _, raw := range []string{
		"http://169。254。169。254/", "http://ⓛocalhost/", "http://ｌｏｃａｌｈｏｓｔ/", "http://１２７.0.0.1/", "http://①②⑦.0.0.1/", "http://127｡0｡0｡1/", "http://0x7f.1/", "http://0ｘ7f000001/",
		"http://%6c%6f%63alhost/", "http://xn--localhost/", "http://[::ffff:7f00:1]/", "http://[::ffff:169.254.169.254]/", "http://a.localhost。/", "http://0x/", "http://1.2.3.0x4/", "http://127.1/",
	} {
		_, err := guard.Target(raw)
		if err == nil {
			t.Errorf("%s can be registered", raw)
		} else if !errors.Is(err, webhook.ErrForbidden) && !strings.Contains(raw, "%6c") && !strings.Contains(raw, "xn--") {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

func TestGuardForbidsMemhookItself(t *testing.T) {
	t.Parallel()
	self, err := webhook.ParseTarget("https://memhook.example/base")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(server.Close)
	own := netip.MustParseAddrPort(server.Listener.Addr().String())
	guard := webhook.NewGuard(webhook.Policy{AllowHTTP: true, Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Self: &self, Listener: own})
	for raw, forbidden := range map[string]bool{
		"https://memhook.example/base": true, "https://memhook.example/base/v1/tasks": true, "http://memhook.example/base/": true, "https://MEMHOOK.example.:443/x/../base/y": true, "https://memhook.example/base?x": true,
		"https://memhook.example/basement": false, "https://memhook.example/": false, "https://memhook.example:8443/base": false, "https://other.example/base": false,
		server.URL: true, "http://127.0.0.1:1/": false, "http://127.0.0.2:" + server.URL[len("http://127.0.0.1:"):]: false,
	} {
		if _, err := guard.Target(raw); errors.Is(err, webhook.ErrForbidden) != forbidden {
			t.Errorf("%s: %v", raw, err)
		}
	}
	everywhere := webhook.NewGuard(webhook.Policy{AllowHTTP: true, Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Listener: netip.AddrPortFrom(netip.IPv6Unspecified(), own.Port())})
	sender := webhook.NewSender(webhook.SenderConfig{Guard: everywhere, Timeout: time.Second})
	t.Cleanup(sender.Close)
	if resp := sender.Send(t.Context(), webhook.Request{URL: server.URL}); !errors.Is(resp.Err, webhook.ErrForbidden) || resp.Err.Error() != "the address is not allowed" {
		t.Errorf("sent to itself: %+v", resp)
	}
}
