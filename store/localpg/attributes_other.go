//go:build !linux

package localpg

import "syscall"

// attributes runs a process as its owner in a group of its own, so that a terminal's Ctrl-C is ours to
// pass on. This system does not tell a process of its parent's end.
func attributes(owner *syscall.Credential, _ syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: owner, Setpgid: true}
}
