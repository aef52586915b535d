// Package worker does memhook's background work. It runs on River and translates between the database, the client of
// memories.ai and the webhooks' wire format. Each file is one job or protocol:
//
//   - poll.go is the job that polls an account; poller.go its loop, poll_tasks.go the list that it chooses from,
//     poll_result.go what an answer changes, suspicion.go whether a failure is the account's or the task's, pacer.go the
//     distance between requests, notifier.go the wake-ups of idle pollers. Package polling decides which task is next.
//   - deliver.go has the jobs that deliver events; attempt.go one attempt and the schedule of retries, limiter.go the
//     attempts in flight to an endpoint and the release of parked deliveries, event.go the body of a webhook.
//   - heartbeat.go takes over jobs whose instance is dead or never got them; maintenance.go expires, adopts and purges.
//   - limits.go has the intervals and bounds of all of these, and worker.go starts and stops them.
package worker
