// Package polling states which of an account's tasks gets the next request: the index policy, the
// survival function that it learns, and a simulation of both on virtual time. It knows no database and
// no clock.
package polling
