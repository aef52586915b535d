package worker

import (
	"context"
	"log/slog"
	"math/bits"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
)

// failing logs jobs that fail again and again, which River retries in silence: an attempt that cannot be recorded is made
// again each time.
type failing struct{ log *slog.Logger }

// HandleError logs a job's third failure, and then each time their number has doubled.
func (f failing) HandleError(_ context.Context, job *rivertype.JobRow, err error) *river.ErrorHandlerResult {
	if n := uint(len(job.Errors) + 1); n == 3 || (n > 3 && bits.OnesCount(n) == 1) {
		f.log.Error("a job fails again and again", "kind", job.Kind, "job", job.ID, "failures", n, "args", string(job.EncodedArgs), "error", err)
	}
	return nil
}

// HandlePanic logs a bug.
func (f failing) HandlePanic(_ context.Context, job *rivertype.JobRow, bug any, trace string) *river.ErrorHandlerResult {
	f.log.Error("a job has panicked", "kind", job.Kind, "job", job.ID, "panic", bug, "trace", trace)
	return nil
}
