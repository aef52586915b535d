// Package proc finds free ports for processes and reads how much CPU and memory a process uses. The
// benchmarks and the tests use it. CPU and memory need Linux's /proc.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
)

// The ports lie below those that operating systems give to connections and to listeners on port 0. Such a
// port could be taken before the process it was found for opens it, or while that process restarts.
const firstPort, ports = 20_000, 10_000

var portsGiven atomic.Uint32

// FreePort returns a loopback address that nobody listens on. It returns each address once.
func FreePort() (string, error) {
	start := os.Getpid() * 61 // so that two processes begin at different ports
	for range ports {
		port := firstPort + (start+int(portsGiven.Add(1)))%ports
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			return l.Addr().String(), l.Close()
		}
	}
	return "", fmt.Errorf("no port from %d to %d is free on 127.0.0.1", firstPort, firstPort+ports-1)
}

// CPU returns the CPU seconds that a process and its running children have used. Children that have ended
// count too.
func CPU(pid int) (float64, error) {
	total, err := CPUAlone(pid)
	if err != nil {
		return 0, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if used, parent, err := stat(child); err == nil && parent == pid {
			total += used
		}
	}
	return total, nil
}

// CPUAlone returns the CPU seconds that a process and its ended children have used.
func CPUAlone(pid int) (float64, error) {
	seconds, _, err := stat(pid)
	return seconds, err
}

// stat reads /proc/PID/stat: user and system time of a process and of its ended children, and its parent.
func stat(pid int) (seconds float64, parent int, err error) {
	const ticksPerSecond = 100 // USER_HZ, the same on all Linux systems that Go runs on
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, err
	}
	_, rest, _ := strings.Cut(string(raw[bytes.LastIndexByte(raw, ')'):]), " ")
	fields := strings.Fields(rest) // from the third field on
	if len(fields) < 15 {
		return 0, 0, errors.New("unexpected /proc/PID/stat")
	}
	if parent, err = strconv.Atoi(fields[1]); err != nil {
		return 0, 0, err
	}
	for _, f := range fields[11:15] {
		n, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return 0, 0, err
		}
		seconds += n / ticksPerSecond
	}
	return seconds, parent, nil
}

// PeakMemory returns the most memory that a process has had resident, in MiB.
func PeakMemory(pid int) float64 { return memory(pid, "VmHWM:") }

// ResidentMemory returns the memory that a process has resident now, in MiB.
func ResidentMemory(pid int) float64 { return memory(pid, "VmRSS:") }

// memory reads a line of /proc/PID/status, in MiB. It returns 0 for a process that has ended.
func memory(pid int, which string) float64 {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		if value, ok := strings.CutPrefix(line, which); ok {
			kib, _ := strconv.ParseFloat(strings.Fields(value)[0], 64)
			return kib / 1024
		}
	}
	return 0
}
