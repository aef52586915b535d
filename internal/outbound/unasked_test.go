package outbound_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/memhook/memhook/internal/outbound"
)

// What a peer sends on an idle connection is no answer to the next request.
func TestAnswersThatNobodyAskedForCountForNothing(t *testing.T) {
	t.Parallel()
	said := make(chan struct{}, 10)
	url := listen(t, func(conn net.Conn) {
		in := bufio.NewReader(conn)
		for {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			time.Sleep(10 * time.Millisecond) // the connection is idle by then
			_, _ = io.WriteString(conn, "HTTP/1.1 500 Too Late\r\nContent-Length: 0\r\n\r\n")
			said <- struct{}{}
		}
	})
	client := newClient(t, func(c *outbound.Config) { c.Resend = true })
	for range 5 {
		if resp, err := client.Do(t.Context(), post(t, url, "{}")); err != nil || resp.Status != http.StatusOK {
			t.Fatalf("%+v %v", resp, err)
		}
		<-said
	}
}
