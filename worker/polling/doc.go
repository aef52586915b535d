// Package polling decides which of an account's tasks is polled next: the index policy, and the survival
// function that it learns. It uses no database and no clock. Package simulate compares it with other
// policies.
package polling
