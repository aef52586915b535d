//go:build !linux

package badpeers

import (
	"errors"
	"net"
)

func listenDeaf() (net.Listener, error) { return nil, errors.ErrUnsupported }
