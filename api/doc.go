// Package api is memhook's HTTP surface: what upstream apps call under /v1, what operators call under
// /admin/v1, memories.ai's hints, and the probes. Its types are the wire's own, so that a column that is
// added to the database cannot leak into an answer.
package api
