// Package polling decides which of an account's tasks gets the next request: policy.go is the index policy, survival.go
// the distribution of the time that tasks take, which it learns. The package uses neither a database nor a clock.
package polling
