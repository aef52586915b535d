package badpeers

import (
	"fmt"
	"net"
	"os"
	"syscall"
)

// deafListener is a socket that listens, accepts nothing, and has its queue full.
type deafListener struct {
	net.Listener
	fillers []int
}

func (l *deafListener) Close() error {
	for _, fd := range l.fillers {
		_ = syscall.Close(fd)
	}
	return l.Listener.Close()
}

func listenDeaf() (net.Listener, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), "deaf")
	defer func() { _ = file.Close() }() // the listener has its own copy
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return nil, fmt.Errorf("bind: %w", err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	listener, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("file listener: %w", err)
	}
	// net listens once more with the system's queue; the short one is set again.
	if err := syscall.Listen(fd, 0); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	address := syscall.SockaddrInet4{Port: listener.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}
	deaf := &deafListener{Listener: listener}
	for range 4 {
		filler, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("socket: %w", err)
		}
		_ = syscall.Connect(filler, &address) // EINPROGRESS
		deaf.fillers = append(deaf.fillers, filler)
	}
	return deaf, nil
}
