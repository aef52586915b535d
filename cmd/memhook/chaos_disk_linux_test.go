package main

import (
	"os"
	"syscall"
	"testing"
)

// smallDisk mounts a small file system for PostgreSQL where this machine lets us; else it gives "".
func smallDisk(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		return ""
	}
	dir, err := os.MkdirTemp("", "mhc") // short: a socket's path is
	if err != nil {
		return ""
	}
	if err := os.Chmod(dir, 0o755); err != nil || syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=700m,mode=755") != nil {
		_ = os.Remove(dir)
		return ""
	}
	t.Cleanup(func() {
		_ = syscall.Unmount(dir, syscall.MNT_DETACH)
		_ = os.Remove(dir)
	})
	return dir
}
