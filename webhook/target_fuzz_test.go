package webhook_test

import (
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/memhook/memhook/webhook"
)

// Whatever is registered: the normal form is a URL of ASCII that is its own normal form, names what the guard has judged,
// and has the same query on the wire.
func FuzzTarget(f *testing.F) {
	for _, seed := range []string{
		"https://h.example/x?name=é", "HTTP://Host:443/x", "http://h:080/", "http://169。254。169。254/", "http://ⓛocalhost/", "https://[::ffff:7f00:1]/", "https://a/%2e%2e/%2F?%zz",
		"https://xn--bcher-kva.example./a/../b//c?d=e+f#", "https://0x7f.1/", "https://h/?", "https://h?a?b", "https://[fe80::1%25eth0]:8080/", "https://u:p@h/", "https://h\\@x/", "https://ß.example:65535/;a=b",
		"https://h/a%2fb/..%2f/.", "https://%31%32%37.0.0.1/", "https://h/\u200d", "https://a\u0301.example/", "https://h/%", "http://1.2.3.4:0/",
	} {
		f.Add(seed)
	}
	guard := webhook.NewGuard(webhook.Policy{AllowHTTP: true})
	f.Fuzz(func(t *testing.T, raw string) {
		target, err := guard.Target(raw)
		if err != nil {
			return
		}
		text := target.String()
		if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f }) || strings.ContainsAny(text, "#\\") {
			t.Fatalf("%q: %q", raw, text)
		}
		if again, err := guard.Target(text); err != nil || again != target {
			t.Fatalf("%q: %q is not its own normal form: %q %v", raw, text, again, err)
		}
		u, err := url.Parse(text)
		if err != nil {
			t.Fatalf("%q: %q: %v", raw, text, err)
		}
		if u.RequestURI() != strings.TrimPrefix(text, u.Scheme+"://"+u.Host) || u.User != nil {
			t.Fatalf("%q: %q goes out as %q", raw, text, u.RequestURI())
		}
		// What the name is to the resolver: a literal address must be one that the guard permits.
		if ip, err := netip.ParseAddr(u.Hostname()); err == nil && (ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast() || ip.IsUnspecified() || ip.Is4In6()) {
			t.Fatalf("%q: %q leads inside", raw, text)
		}
		last := u.Hostname()[strings.LastIndexByte(u.Hostname(), '.')+1:]
		if _, number := strconv.ParseUint(last, 0, 64); net.ParseIP(u.Hostname()) == nil && number == nil && !strings.Contains(last, "_") {
			t.Fatalf("%q: %q is a number to some resolvers", raw, text)
		}
	})
}
