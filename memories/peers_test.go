package memories_test

import (
	"context"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/memhook/memhook/memories"
)

// forever writes b again and again, every now and then, until the client has gone.
func forever(conn net.Conn, every time.Duration, b string) {
	for {
		if _, err := io.WriteString(conn, b); err != nil {
			return
		}
		time.Sleep(every)
	}
}

// say writes s and leaves the connection open.
func say(s string) func(net.Conn) { return func(conn net.Conn) { _, _ = io.WriteString(conn, s) } }

func drip(start, b string) func(net.Conn) {
	return func(conn net.Conn) {
		_, _ = io.WriteString(conn, start)
		forever(conn, 50*time.Millisecond, b)
	}
}

func flood(start, b string) func(net.Conn) {
	return func(conn net.Conn) {
		_, _ = io.WriteString(conn, start)
		forever(conn, 0, strings.Repeat(b, 100))
	}
}

const ok = "HTTP/1.1 200 OK\r\n"

// misbehaving is what a peer does once it has read the request, and the outcome of the poll.
var misbehaving = map[string]struct {
	peer func(net.Conn)
	want memories.Outcome
}{
	"says nothing":                  {say(""), memories.Unavailable},
	"half a status line":            {say("HTTP/1."), memories.Unavailable},
	"another protocol":              {say("SSH-2.0-x\r\n"), memories.Unavailable},
	"HTTP/2 without being asked":    {say("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), memories.Unavailable},
	"a TLS alert":                   {say("\x15\x03\x01\x00\x02\x02\x46"), memories.Unavailable},
	"status 099":                    {say("HTTP/1.1 099 x\r\nContent-Length: 0\r\n\r\n"), memories.Unavailable},
	"status 999":                    {say("HTTP/1.1 999 x\r\nContent-Length: 0\r\n\r\n"), memories.Unavailable},
	"switches protocols":            {say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"), memories.Unavailable},
	"switches protocols and talks":  {flood("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", "x"), memories.Unavailable},
	"one 100 and nothing else":      {say("HTTP/1.1 100 Continue\r\n\r\n"), memories.Unavailable},
	"endless 100":                   {flood("", "HTTP/1.1 100 Continue\r\n\r\n"), memories.Unavailable},
	"slow endless 103":              {drip("", "HTTP/1.1 103 Early Hints\r\n\r\n"), memories.Unavailable},
	"102, then an answer":           {say("HTTP/1.1 102 Processing\r\n\r\n" + ok + "Content-Length: 14\r\n\r\n{\"done\":false}"), memories.Listed},
	"slow headers":                  {drip(ok, "X-A: b\r\n"), memories.Unavailable},
	"a header that never ends":      {drip(ok+"X-A: ", "b"), memories.Unavailable},
	"endless headers":               {flood(ok, "X-A: b\r\n"), memories.Unavailable},
	"an invalid header":             {say(ok + "X A\x00: b\r\n\r\n"), memories.Unavailable},
	"a negative length":             {say(ok + "Content-Length: -1\r\n\r\n"), memories.Unavailable},
	"two lengths":                   {say(ok + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}"), memories.Unavailable},
	"a coding that nobody knows":    {say(ok + "Transfer-Encoding: x\r\n\r\n{}"), memories.Unavailable},
	"no gzip where it says so":      {say(ok + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"), memories.Malformed},
	"a body that does not come":     {say(ok + "Content-Length: 10\r\n\r\n"), memories.Unavailable},
	"a body that stays open":        {say(ok + "\r\n{\"done\":false}"), memories.Unavailable},
	"a slow body":                   {drip(ok+"Content-Length: 1000000\r\n\r\n", "x"), memories.Unavailable},
	"slow chunks":                   {drip(ok+"Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n"), memories.Unavailable},
	"endless chunks":                {flood(ok+"Transfer-Encoding: chunked\r\n\r\n", "400\r\n"+strings.Repeat("x", 1024)+"\r\n"), memories.Malformed},
	"an endless body":               {flood(ok+"\r\n", "x"), memories.Malformed},
	"a broken chunk":                {say(ok + "Transfer-Encoding: chunked\r\n\r\nzz\r\n"), memories.Unavailable},
	"a chunk's endless extension":   {flood(ok+"Transfer-Encoding: chunked\r\n\r\n1;a=", "b"), memories.Unavailable},
	"slow trailers":                 {drip(ok+"Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n0\r\n", "X: b\r\n"), memories.Unavailable},
	"endless trailers":              {flood(ok+"Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n0\r\n", "X: b\r\n"), memories.Unavailable},
	"204 with a body":               {say("HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}"), memories.Malformed},
	"429 whose body does not come":  {say("HTTP/1.1 429 Too Many Requests\r\nContent-Length: 10\r\n\r\n"), memories.RateLimited},
	"403 whose body never ends":     {drip("HTTP/1.1 403 Forbidden\r\n\r\n", "x"), memories.Blocked},
	"503 whose body floods":         {flood("HTTP/1.1 503 Service Unavailable\r\n\r\n", "x"), memories.Unavailable},
	"an answer and bytes behind it": {say(ok + "Content-Length: 14\r\n\r\n{\"done\":false}more"), memories.Listed},
	"two answers":                   {say(answered + answered), memories.Listed},
	"HTTP/1.0 without a length": {func(conn net.Conn) {
		_, _ = io.WriteString(conn, "HTTP/1.0 200 OK\r\n\r\n{\"done\":false}")
		conn.Close()
	}, memories.Listed},
	"closes at once":            {func(conn net.Conn) { conn.Close() }, memories.Unavailable},
	"resets":                    {func(conn net.Conn) { _ = conn.(*net.TCPConn).SetLinger(0); conn.Close() }, memories.Unavailable},
	"closes its side only":      {func(conn net.Conn) { _ = conn.(*net.TCPConn).CloseWrite() }, memories.Unavailable},
	"breaks off in the headers": {func(conn net.Conn) { _, _ = io.WriteString(conn, ok+"X-A"); conn.Close() }, memories.Unavailable},
	"breaks off in a chunk": {func(conn net.Conn) {
		_, _ = io.WriteString(conn, ok+"Transfer-Encoding: chunked\r\n\r\nff\r\nx")
		conn.Close()
	}, memories.Unavailable},
	"asks for authorization without a 401": {say("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"), memories.Unavailable},
}

// Whatever a peer does, a poll ends when its time is over, tells why, and leaves neither goroutine nor
// connection. The poll's context ends it here, before its own time-out would, by the same way. (This test runs beside no other, since it counts goroutines.)
func TestNoPeerHoldsAPoll(t *testing.T) { //nolint:paralleltest // see above
	const timeout = 2 * time.Second
	before := runtime.NumGoroutine()
	var polls, peers sync.WaitGroup
	for name, m := range misbehaving {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		peers.Go(func() {
			conn, err := listener.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_, _ = conn.Read(make([]byte, 4096))
			m.peer(conn)
			// The client must go away by itself.
			_ = conn.SetReadDeadline(time.Now().Add(2 * timeout))
			if _, err := io.Copy(io.Discard, conn); err != nil && strings.Contains(err.Error(), "timeout") {
				t.Errorf("%s: the connection is still open", name)
			}
		})
		polls.Go(func() {
			client := memories.New("http://"+listener.Addr().String(), 1, "memhook/test")
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			start := time.Now()
			got := client.TaskStatus(ctx, lake, "t", "")
			client.Close()
			if took := time.Since(start); got.Outcome != m.want || took > timeout+time.Second || (got.Outcome != memories.Listed && got.Message == "") {
				t.Errorf("%s: %s %q after %s, want %s", name, got.Outcome, got.Message, took, m.want)
			}
		})
	}
	polls.Wait()
	peers.Wait()
	for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}
