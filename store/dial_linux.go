package store

import (
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// giveUpUnacknowledged bounds how long a TCP socket waits for the acknowledgement of what it sent.
func giveUpUnacknowledged(network, _ string, raw syscall.RawConn) error {
	if !strings.HasPrefix(network, "tcp") {
		return nil
	}
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unacknowledged.Milliseconds()))
	})
	if err != nil {
		return err
	}
	return failed
}
