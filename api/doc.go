// Package api is memhook's HTTP surface: the operations of apps under /v1 and of operators under /admin/v1, memories.ai's
// hints, and the probes. routes.go lists all operations; each entity has a file with its wire types and handlers.
//
// A handler parses its input, calls the store with the caller's scope, and returns a plain error, which one adapter (see do)
// maps to a problem. The wire types are not the store's, so that a column added to the database cannot leak into an answer.
package api
