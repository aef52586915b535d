package localpg

import "syscall"

// attributes runs a process as its owner in a group of its own, so that a terminal's Ctrl-C is ours to
// pass on, and signals it when this process ends.
func attributes(owner *syscall.Credential, atEnd syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: owner, Setpgid: true, Pdeathsig: atEnd}
}
