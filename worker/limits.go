package worker

import (
	"time"

	"github.com/memhook/memhook/store"
)

// This file holds the intervals and bounds of the workers, so that those that depend on one another stand together.

// The job queue.
const (
	// fetchCooldown is the least time between two fetches of a queue. River's default of 100 ms would become the median
	// latency of a delivery.
	fetchCooldown = 5 * time.Millisecond
	// fetchPoll is how soon a job is found that no notification tells of: one that is snoozed for some seconds, that was
	// taken from a dead instance, or whose notification was lost. These fetches were most of an idle instance's CPU.
	fetchPoll = time.Second
	// fetchPollNotified is fetchPoll for first attempts and uploads, of which a notification tells, as a rule.
	fetchPollNotified = 2 * time.Second
	// fetchPollJobs is fetchPoll for poll jobs. When a lease ends its job is snoozed for no time at all, and until the job
	// is fetched again its account takes no slot: at one request a second some 0.3 % of the slots, as a lease lasts 108 s.
	fetchPollJobs = 500 * time.Millisecond
	// fetchPollOnly is all of them behind a transaction pooler, where there are no notifications. It costs some 60 small
	// queries a second.
	fetchPollOnly = 50 * time.Millisecond
	// keepCompleted is how long River's pages show completed jobs. memhook's own tables keep the history.
	keepCompleted = 30 * time.Second
	// deliverWorkers is the number of jobs in each queue of deliveries. Each may be held by one delivery, so it must exceed
	// what the limiters let in flight and wait: 2,000 and 6,000.
	deliverWorkers = 9000
	// loadingJobs is how many jobs load their deliveries and look for places at once. It bounds the memory of a burst.
	loadingJobs = 500
	// pollWorkers is the number of accounts that one instance polls, River's maximum. Pollers sleep between slots.
	pollWorkers = 10_000
	// uploadWorkers is the number of accounts for which one instance submits at once.
	uploadWorkers = 200
)

// Uploads.
const (
	// uploadPause is how long an upload job waits for the next upload to be due. Where that is longer it snoozes for the time
	// before, since River may fetch it 5 s late, but for at most uploadSnooze, so that a change of the budget takes effect.
	uploadPause, uploadSnooze = 5 * time.Second, time.Minute
	// A submission that memories.ai has not taken is repeated after submitMin, doubled with each attempt up to submitMax.
	// After submitMost attempts, a day and more, it has failed.
	submitMin, submitMax = time.Second, time.Minute
	submitMost           = 1500
	// An upload has failed once memories.ai has refused it refusalsOfUpload times, with refusedUploadPause between. In an
	// outage memories.ai refuses everything with 0001: such a refusal fails it so soon only if another upload was taken in
	// between, and otherwise after refusalsUnclear, a quarter of an hour.
	refusalsOfUpload, refusalsUnclear = 2, 12
	refusedUploadPause                = 75 * time.Second
)

// Deliveries and their endpoints.
const (
	// receiverFresh is how long an endpoint's settings are used after they were read. Everything that changes an
	// endpoint takes effect within this time. api waits a little longer than this (its settingsFresh) before it answers
	// a rotation of secrets, so that every attempt that begins after the answer is signed with the new secret: change
	// both together.
	receiverFresh = time.Second
	// parkAtOnce is how long deliveries are parked without a wait after one has waited for a place in vain. The next
	// release, at most heartbeatInterval later, serves them.
	parkAtOnce = receiverFresh
	// waitMost is how long a delivery may be expected to wait in memory for a place at an endpoint that answers. It is
	// parked after twice that.
	waitMost = 2 * time.Second
	// tryFor is how long it waits at a host that has not answered lately, if the mean duration of its attempts is at most
	// quickMean: until the first answers of a burst come.
	tryFor, quickMean = 250 * time.Millisecond, 100 * time.Millisecond
	// waitShares is how many times an app's share of the attempts in flight may wait. One share more is for endpoints of
	// which none waits yet, and one for what is released.
	waitShares = 4
	// releaseTakes is about how long it takes to release parked deliveries, and releaseLate when those that have not come
	// have gone to another instance.
	releaseTakes, releaseLate = 100 * time.Millisecond, time.Second
	// limiterIdle is how long an unused endpoint's limiter is kept. It must exceed receiverFresh and parkAtOnce.
	limiterIdle = time.Minute

	// inFlight is how many attempts one instance has in flight. By Little's law 4,000 deliveries a second to receivers that
	// answer in 200 ms need 800; each takes some 30 KiB.
	inFlight = 1000
	// weightBytes is the payload up to which an attempt counts as one; a larger one counts as one more for each.
	weightBytes = store.LoadedPayload
	// appShare is the part of maxInFlight that an app has while others have work: one appShare-th.
	appShare = 4
	// appFloor is how many attempts an app may always have in flight.
	appFloor = 4
	// windowMin is the least window of an endpoint and of a host.
	windowMin = 20
	// A window is halved where the median of the durations exceeds slowFactor times its base and slowMargin, which keeps the
	// jitter of fast receivers from counting. It does not grow where the median exceeds one and a half times the base and
	// growMargin.
	slowFactor, slowMargin, growMargin = 2, 50 * time.Millisecond, 10 * time.Millisecond
	// Each answer moves the median by a part of medianOf, or by a millisecond: some 60 slow answers in a row are a slowdown. It
	// stays within some 7 % where durations spread as the internet's do (lognormal, sigma 0.5).
	medianOf = 64
	// A host is proven by an answer within provenWithin, until it fails to answer or has not answered for stalledAfter while it
	// had attempts in flight, which is looked at every stallTick.
	provenWithin, stalledAfter, stallTick = 5 * time.Second, 2 * time.Second, 250 * time.Millisecond
	// serveMost is how many waiting deliveries of an app are looked at when a place is given back.
	serveMost = 64
	// planInterval is the least time between two plans of releases, and releaseBatch how many endpoints a transaction
	// releases.
	planInterval = 50 * time.Millisecond
	releaseBatch = 200
	// attemptIdle is how long a goroutine for first attempts waits for the next one.
	attemptIdle = 5 * time.Second

	// A receiver that answers 429, 502, 503 or 504 without Retry-After is held for holdMin, doubled with each failure in
	// a row up to holdMax.
	holdMin, holdMax = time.Second, time.Minute
	// scheduleJitter spreads retries that were scheduled at one moment: each delay is up to 20 % shorter or longer.
	scheduleJitter = 0.2
	// earlyBy is how long before its due time an attempt may be made. It covers the difference between the clocks of the
	// database and of this machine.
	earlyBy = 50 * time.Millisecond
)

// Polls. The database grants slots; see [store.SlotInterval] for how far apart they are.
const (
	// A poll job holds its account's lease for a random time between these bounds. It is short enough that new instances
	// soon get their share, long enough that the change costs nothing, and random so that accounts do not change
	// together.
	leaseMin, leaseMax = 5 * time.Second, 210 * time.Second
	// slotLead is how long before its time a slot is asked for, at most half the interval. It covers what a busy database
	// takes to answer: a slot that is asked for late is late, and so are all slots after it.
	slotLead = 100 * time.Millisecond
	// maxSlotWait bounds the database's answer time of which half counts as the way there. A longer answer time says too
	// little about when the slot is.
	maxSlotWait = time.Second
	// maxLateness is how long after its slot a request may leave. It protects another instance's requests, which may hold
	// the lease by then; the requests of one instance are kept apart by its pacer, however late they are.
	maxLateness = 250 * time.Millisecond
	// pacerTolerance is the lateness of a request that does not delay the requests after it: what a timer and the
	// scheduler take. It must be a small part of the jitter that [store.SlotInterval] allows for.
	pacerTolerance = 5 * time.Millisecond
	// catchUp is the part of the slot interval that late requests keep apart. It is less than 1 so that they become
	// punctual again.
	catchUp = 0.99
	// maxPollsInFlight bounds the polls in flight for one account whose budget is larger.
	maxPollsInFlight = 100
	// notifyInterval is how soon an idle poller learns of a new or hinted task.
	notifyInterval = 50 * time.Millisecond
	// errorPause is how long a poller waits after an error of the database.
	errorPause = time.Second

	// refusedPause is the backoff of an account whose key is refused.
	refusedPause = time.Minute
	// A rate-limited account backs off for limitedMin, doubled up to limitedMax, as memories.ai's documentation asks.
	limitedMin, limitedMax = time.Second, 32 * time.Second
	// retryAfterMax bounds what memories.ai may ask for in Retry-After.
	retryAfterMax = 5 * time.Minute
	// An account whose service is down backs off for outageMin, doubled up to outageMax.
	outageMin, outageMax = time.Second, time.Minute
)

// Heartbeat and maintenance.
const (
	// heartbeatInterval must be well below [store.InstanceStale], after which other instances take over the jobs. So often are
	// dead instances, expired tasks, parked deliveries that have become due, and bulk resends looked for, too.
	heartbeatInterval = time.Second
	// reclaimInterval is how often an instance looks for jobs that it is recorded as running but is not running. A job
	// that is found twice in a row is released.
	reclaimInterval = 5 * time.Second
	// expireBatch is how many tasks a statement expires.
	expireBatch = 500
	// reviewInterval is how often all expired tasks that still wait to be asked are looked at.
	reviewInterval = time.Minute
	// mergedInterval is how often deliveries of merged endpoints are looked for.
	mergedInterval = 10 * time.Second
	// adoptInterval is how often work without a job gets a new one. With what the store waits before it looks for the job
	// of a delivery, or for a heartbeat of an instance that is not listed, it is less than 10 s.
	adoptInterval = 4 * time.Second
	// feedInterval is how often it is looked at whether the database was restored.
	feedInterval = time.Minute
	// partitionInterval is how often it is looked whether partitions are to be made, days ahead.
	partitionInterval = 10 * time.Minute
	// purgeInterval is how often old rows are deleted. A shorter retention makes it a tenth of the retention, at least
	// a second.
	purgeInterval = 10 * time.Minute
	// leaveTimeout bounds the cancelling of an instance's remaining jobs when it stops, and their release.
	leaveTimeout = time.Second
)
