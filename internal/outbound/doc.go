// Package outbound makes the HTTP requests that leave memhook: webhooks to receivers and polls of memories.ai.
// Whoever answers is somebody else's program, so every exchange is bounded in time and in bytes, whatever the
// answer is. It imports nothing else of memhook.
//
// The package keeps its own connections instead of using [net/http.Transport], which sends some requests again on
// its own, takes bytes that a peer sent beyond one answer for the beginning of the next one, and gives up an answer
// that came before the request was written. Requests are written and responses are parsed by net/http all the same.
//
// # HTTP/1.1 only
//
// A connection carries one exchange at a time. A connection that went silent therefore costs one attempt, while a
// silent HTTP/2 connection costs all requests to its host. The whole connection can be closed when the exchange's
// time is over. Every server that speaks HTTP/2 over TLS speaks HTTP/1.1 where ALPN asks for it.
//
// # Bounds
//
//   - Time: [Config].Timeout covers resolving the name, connecting, the proxy, TLS, writing the request and reading
//     the answer to its last byte. When it is over, or the caller's context is done, the socket is closed.
//   - Head: [Config].MaxHeader covers the final head and all 1xx heads before it.
//   - Body: [Config].MaxBody bytes are read. The connection is closed if there are more.
//   - Idle connections: [Config].MaxIdle in all and [Config].MaxIdlePerHost for one host, for a minute.
//
// # Reuse
//
// A connection is used again only if its answer ended where HTTP says that it ends and nothing came after it. Before
// it is used again, the socket is asked whether the peer has closed it. A peer can still close it while the next
// request is on its way. With [Config].Resend, a request to which no byte of an answer came on a used connection is
// sent once more on a new one. Without it, one call of [Client.Do] sends one request at most.
// After a time-out, the host's idle connections are closed too, because they may be silent as well.
package outbound
