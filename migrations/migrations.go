// Package migrations holds memhook's schema as numbered SQL files; package store applies them,
// together with River's own.
package migrations

import "embed"

// FS holds the numbered files, in goose's format.
//
//go:embed *.sql
var FS embed.FS
