package webhook_test

import (
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/memhook/memhook/internal/outbound"
	"github.com/memhook/memhook/internal/outbound/badpeers"
	"github.com/memhook/memhook/webhook"
)

// Whatever a receiver does, an attempt ends in time, the status decides, and the error says what to mend and nothing of
// our network.
func TestSendEndsWhateverTheReceiverDoes(t *testing.T) {
	t.Parallel()
	const timeout = 2 * time.Second
	authority := badpeers.NewAuthority()
	guard := webhook.NewGuard(webhook.Policy{AllowHTTP: true, Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	sender := webhook.NewSender(webhook.SenderConfig{Guard: guard, Timeout: timeout, ConnsPerHost: 10, Roots: authority.Pool()})
	t.Cleanup(sender.Close)
	var attempts sync.WaitGroup
	turns := make(chan struct{}, 40)
	for _, s := range badpeers.StartAll(t, authority) {
		body := []byte("{}")
		if s.Peer.LargeRequest {
			body = make([]byte, 8<<20)
		}
		turns <- struct{}{}
		attempts.Go(func() {
			defer func() { <-turns }()
			resp := sender.Send(t.Context(), webhook.Request{URL: s.URL, ID: "evt_1", Body: body})
			ok := s.Peer.Status/100 == 2
			if resp.OK() != ok || resp.Status != s.Peer.Status || resp.Duration > timeout+time.Second {
				t.Errorf("%s: %t, %d, %s", s.Peer.Name, resp.OK(), resp.Status, resp.Duration)
			}
			said := ""
			if resp.Err != nil {
				said = resp.Err.Error()
			}
			if want := string(s.Peer.Kind); (ok && said != "") || (!ok && said != want) || strings.Contains(said, "127.") {
				t.Errorf("%s: it says %q, want %q", s.Peer.Name, said, want)
			}
			want := "error"
			switch {
			case s.Peer.Status != 0:
				want = strconv.Itoa(s.Peer.Status/100) + "xx"
			case (&outbound.Error{Kind: s.Peer.Kind}).Timeout():
				want = "timeout"
			}
			if resp.Class() != want {
				t.Errorf("%s: class %s, want %s", s.Peer.Name, resp.Class(), want)
			}
		})
	}
	attempts.Wait()
}

// Through a proxy, the guard judges what the URL shows before the proxy hears of it.
func TestGuardJudgesBeforeTheProxy(t *testing.T) {
	t.Parallel()
	proxy := badpeers.Start(t, badpeers.Peer{Serve: func(c net.Conn) { _, _ = c.Read(make([]byte, 4096)) }}, nil)
	proxyURL, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	sender := webhook.NewSender(webhook.SenderConfig{Guard: webhook.NewGuard(webhook.Policy{AllowHTTP: true}), Timeout: time.Second, Proxy: proxyURL})
	t.Cleanup(sender.Close)
	for _, host := range append(forbidden, "①②⑦.0.0.1", "169。254。169。254") {
		for _, scheme := range []string{"http", "https"} {
			if resp := sender.Send(t.Context(), webhook.Request{URL: scheme + "://" + host + "/"}); resp.Class() != "forbidden" {
				t.Errorf("%s %s: %s %v", scheme, host, resp.Class(), resp.Err)
			}
		}
	}
	if n := proxy.Accepted(); n != 0 {
		t.Errorf("the proxy was asked %d times", n)
	}
	if resp := sender.Send(t.Context(), webhook.Request{URL: "https://name.example/"}); resp.Class() != "proxy" || !resp.ProxyFailed() || proxy.Accepted() != 1 {
		t.Errorf("a name: %s %v (%v)", resp.Class(), resp.Err, resp.Details())
	}
}
