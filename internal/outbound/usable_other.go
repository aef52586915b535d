//go:build !unix

package outbound

// usable reports that a connection can be used again: here, only its use shows whether the peer has closed it.
func (*conn) usable() bool { return true }
