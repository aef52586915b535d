package memories

import (
	"context"
	"strings"
	"time"
)

const (
	// DefaultBaseURL is where memories.ai answers. Both generations are below it.
	DefaultBaseURL = "https://api.memories.ai"

	// MaxBody is the most of an answer that is read, in bytes: some ten thousand videos.
	MaxBody = 4 << 20
	// Timeout bounds one request, from dialling to the last byte of the answer.
	Timeout = 10 * time.Second
)

// API is a generation of memories.ai's API.
type API string

// The generations.
const (
	V1       API = "v1"       // "API 1.0": tasks, each with a list of videos
	Datalake API = "datalake" // "API 2.0", the Video Datalake: operations, each about one video
)

// datalakePrefix begins the keys of the Datalake; those of v1 begin with sk-mavi-.
const datalakePrefix = "sk-mai-"

// APIOf returns the generation that a key belongs to by its prefix: [Datalake] for sk-mai-…, [V1] for anything else.
func APIOf(key string) API {
	if strings.HasPrefix(key, datalakePrefix) {
		return Datalake
	}
	return V1
}

// Account is whose key a request carries. An empty API means [APIOf] the key.
type Account struct {
	API API
	Key string
}

// generation is what the generations of the API differ in.
type generation interface {
	taskStatus(ctx context.Context, key, taskID, uniqueID string) Status
	submit(ctx context.Context, key string, s Submission) Receipt
}

// Client makes requests to memories.ai. It is safe for concurrent use.
type Client struct {
	wire     *wire
	v1       generation
	datalake generation
}

// New makes a client of the service at baseURL. conns bounds the connections that are kept open. userAgent
// names the program to the service, such as memhook/1.0.0.
func New(baseURL string, conns int, userAgent string) *Client {
	w := newWire(strings.TrimRight(baseURL, "/"), conns, userAgent)
	return &Client{wire: w, v1: &v1{wire: w}, datalake: &datalake{wire: w}}
}

// Close closes idle connections.
func (c *Client) Close() { c.wire.close() }

// TaskStatus asks for the status of one task: with a Datalake account taskID is the operation's id, and
// uniqueID is ignored. It never fails: what went wrong is the status's outcome. One call is at most one
// request, and nothing is sent again.
func (c *Client) TaskStatus(ctx context.Context, account Account, taskID, uniqueID string) Status {
	return c.of(account).taskStatus(ctx, account.Key, taskID, uniqueID)
}

// Submit submits videos and classifies the answer. One call is at most one request, and nothing is sent
// again: whether a repetition is safe stands in [Receipt]. A submission that has begun goes on to its end,
// for [Timeout] at most, when ctx is cancelled.
func (c *Client) Submit(ctx context.Context, account Account, s Submission) Receipt {
	return c.of(account).submit(ctx, account.Key, s)
}

func (c *Client) of(account Account) generation {
	if account.API == Datalake || (account.API == "" && APIOf(account.Key) == Datalake) {
		return c.datalake
	}
	return c.v1
}
