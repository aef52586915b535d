package outbound_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/memhook/memhook/internal/outbound"
)

func newClient(t *testing.T, change func(*outbound.Config)) *outbound.Client {
	t.Helper()
	cfg := outbound.Config{Timeout: 2 * time.Second, MaxHeader: 32 << 10, MaxBody: 4 << 10, MaxIdle: 100, MaxIdlePerHost: 100}
	if change != nil {
		change(&cfg)
	}
	c := outbound.New(cfg)
	t.Cleanup(c.Close)
	return c
}

func post(t *testing.T, url, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func TestDoUsesAConnectionAgain(t *testing.T) {
	t.Parallel()
	connections := make(map[string]int)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connections[r.RemoteAddr]++
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
	}))
	t.Cleanup(server.Close)
	client := newClient(t, nil)
	for range 100 {
		resp, err := client.Do(t.Context(), post(t, server.URL, "hello"))
		if err != nil || resp.Status != http.StatusOK || string(resp.Body) != "hello" || resp.Broken != nil {
			t.Fatalf("%+v %v", resp, err)
		}
	}
	if len(connections) != 1 {
		t.Errorf("100 exchanges took %d connections", len(connections))
	}
}
