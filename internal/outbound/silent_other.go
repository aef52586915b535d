//go:build !unix

package outbound

// silent reports that a connection can be used again: here, only its use shows whether the peer has closed it.
func (*conn) silent() bool { return true }
