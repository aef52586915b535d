// Package memories is the client of memories.ai, in both generations of its API. It asks for the status
// of one task, or submits videos: one request a call, a tolerant reading of the answer, and a
// classification that is the same for both. What differs between the generations stands in v1.go and
// datalake.go and is seen outside only as an account's [API]. The package knows nothing of the rest of
// memhook. Package memoriestest beside it simulates the service over HTTP.
package memories
