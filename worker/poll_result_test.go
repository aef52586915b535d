package worker

import (
	"testing"

	"github.com/memhook/memhook/memories"
	"github.com/memhook/memhook/store"
)

// Whatever is recorded of a poll that failed has a code, which events pass on to customers, though the answer may have none.
func TestEveryErrorHasACode(t *testing.T) {
	t.Parallel()
	for outcome := memories.TaskRefused; outcome <= memories.AskAgain; outcome++ {
		for _, ofAccount := range []bool{false, true} {
			p := pollOf(&answer{status: memories.Status{Outcome: outcome, Message: "words", HTTPStatus: 404}, failed: ofAccount})
			n := 0
			for _, e := range []*store.TaskError{p.Refusal, p.Failure, p.Fault} {
				if e != nil {
					n++
				}
				if e != nil && e.Code == "" {
					t.Errorf("%s, of the account %t: no code", outcome, ofAccount)
				}
			}
			if n != 1 {
				t.Errorf("%s, of the account %t: %d errors", outcome, ofAccount, n)
			}
		}
	}
}
