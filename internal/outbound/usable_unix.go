//go:build unix

package outbound

import (
	"errors"
	"syscall"
)

// usable reports whether an idle connection can be used again: the peer has neither closed it nor sent anything.
func (c *conn) usable() bool {
	socket, ok := c.socket.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	var found error
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, found = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return true
	})
	return err == nil && errors.Is(found, syscall.EAGAIN)
}
