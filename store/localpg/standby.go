package localpg

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// StartStandby makes a streaming standby of a running server, whose Unix socket it follows, and runs it.
func StartStandby(ctx context.Context, primary *Server, opts Options) (*Server, error) {
	s := &Server{bin: primary.bin, opts: opts, owner: primary.owner}
	program, err := Program("pg_basebackup")
	if err != nil {
		return nil, err
	}
	if s.dir, err = makeDir(opts.Parent, s.owner); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, "-D", s.data(), "-R", "-X", "stream", "-c", "fast",
		"-h", primary.dir, "-p", primary.port(), "-U", userName)
	cmd.SysProcAttr = attributes(s.owner, 0)
	cmd.Dir = s.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("pg_basebackup: %w: %s", err, bytes.TrimSpace(out))
	} else {
		err = s.Run(ctx)
	}
	if err != nil {
		_ = os.RemoveAll(s.dir)
		return nil, err
	}
	return s, nil
}

// Freeze stops all processes of the server, as a hung machine does; Thaw lets them go on.
func (s *Server) Freeze() error { return SignalFamily(s.PID(), syscall.SIGSTOP) }

// Thaw ends Freeze.
func (s *Server) Thaw() error { return SignalFamily(s.PID(), syscall.SIGCONT) }

// SignalFamily signals a process and its children, such as PostgreSQL's, which are groups of their own.
func SignalFamily(pid int, sig syscall.Signal) error {
	children := childrenOf(pid) // those that a dead parent no longer has
	if err := syscall.Kill(pid, sig); err != nil {
		return fmt.Errorf("signal %d: %w", pid, err)
	}
	for _, child := range append(children, childrenOf(pid)...) { // and those that it has made meanwhile
		_ = syscall.Kill(child, sig) // one that has just ended is no loss
	}
	return nil
}

func childrenOf(pid int) (children []int) {
	out, _ := exec.Command("ps", "-o", "pid=", "--ppid", strconv.Itoa(pid)).Output() // fails where there are none
	for field := range strings.FieldsSeq(string(out)) {
		if child, err := strconv.Atoi(field); err == nil {
			children = append(children, child)
		}
	}
	return children
}
