// Package webhook is memhook's events on the wire: the payloads, their signatures by the Standard
// Webhooks specification (https://www.standardwebhooks.com), and the guarded sender. A receiver written
// in Go can import it to read and verify what it gets; it depends on nothing of memhook's insides.
package webhook
