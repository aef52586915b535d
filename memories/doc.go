// Package memories is the client of memories.ai's task status: one request, a tolerant reading of the
// answer, and its classification. It knows nothing of the rest of memhook. Package memoriestest beside
// it simulates the service over HTTP.
package memories
