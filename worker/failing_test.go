package worker

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/riverqueue/river/rivertype"
)

// A job that fails for ever is in the log, without filling it.
func TestAJobThatFailsForEverIsLogged(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	f := failing{slog.New(slog.NewTextHandler(&log, nil))}
	job := &rivertype.JobRow{ID: 7, Kind: "deliver"}
	for range 100 {
		f.HandleError(t.Context(), job, errors.New("the database refuses it"))
		job.Errors = append(job.Errors, rivertype.AttemptError{})
		if n := strings.Count(log.String(), "the database refuses it"); (n > 0) != (len(job.Errors) >= 3) {
			t.Fatalf("logged %d times after %d failures", n, len(job.Errors))
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 6 { // 3, 4, 8, 16, 32, 64
		t.Errorf("100 failures were logged %d times, want 6", n)
	}
}
