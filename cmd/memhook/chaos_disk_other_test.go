//go:build !linux

package main

import "testing"

// smallDisk gives no disk of its own: mounting one is Linux's here.
func smallDisk(*testing.T) string { return "" }
