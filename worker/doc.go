// Package worker holds what memhook does in the background: polling memories.ai (poll.go, shift.go),
// delivering events (deliver.go, gate.go), and keeping house (keeper.go). It runs on River, and it
// translates between the database, the client of memories.ai and the webhooks' wire.
package worker
