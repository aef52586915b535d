// Package store holds memhook's domain: its types, their rules and every SQL statement.
//
// An exported method of [Store] begins its transaction and ends it; unexported helpers take a
// transaction and never begin one. Nothing in here speaks HTTP. River's job arguments live here too,
// because jobs are rows that are inserted in the same transactions as the facts that cause them:
// an event exists exactly if its deliveries and their jobs do.
package store
