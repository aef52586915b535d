// Package store holds memhook's domain: its types, their rules and every SQL statement. Nothing in it speaks HTTP.
//
// entity.go has a type and its rules, entity_verb.go its SQL. A protocol in the database has one file that tells its whole
// story at the top: lease.go (which poller may take an account's slots), slot.go (the request budget), parking.go
// (deliveries that wait without a job), instance.go (heartbeats, and the jobs of dead instances), event_emit.go (the outbox).
//
// A transaction begins in an exported method of [Store], in the function that a [Batcher] runs for it, whose name ends in Batch,
// or in a step of a method that does its work in several transactions. A helper that takes a transaction never begins one.
// River's job arguments live here because jobs are rows that are inserted with the facts that cause them. SQLSTATEs are
// looked at in this package alone.
package store
