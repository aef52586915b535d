package dashboard

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/api/verdict"
	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
)

func (d *dashboard) tasks(r *http.Request) (*view, error) {
	data := listData[store.Task]{Filter: filters(r, "task_id", "status", "app_id", "since", "until")}
	f := store.TaskFilter{Scope: filterScope(data.Filter["app_id"]), Status: data.Filter["status"], UpstreamID: data.Filter["task_id"]}
	var err error
	data.Rows, data.pager, err = paged(r, func(t *store.Task) uuid.UUID { return t.ID }, func(p store.Page) ([]store.Task, bool, error) {
		return d.store.Tasks(r.Context(), f, p)
	})
	if err != nil {
		return nil, err
	}
	if data.Apps, err = d.appNames(r); err != nil {
		return nil, err
	}
	return &view{template: "tasks", Title: "Tasks", Live: 3, Data: data}, nil
}

// moment is an entry of a task's timeline.
type moment struct {
	At      time.Time
	Kind    string // of its mark: register, poll, hint, event, good, bad, end
	Title   string
	Detail  string
	Body    string // what a receiver answered
	Link    string
	Pending bool // it has not happened yet

	after time.Time // of the cause, by another instance's clock; it cannot have happened before
}

func (m moment) orderedBy() time.Time {
	if m.after.After(m.At) {
		return m.after.Round(time.Millisecond)
	}
	return m.At.Round(time.Millisecond)
}

type taskData struct {
	*store.Task
	Account  store.Account
	Upload   *uploadLine // of which the task came, if of any
	Timeline []moment
	Resend   []store.Delivery // that can be resent
}

// maxShown is how many videos a task's page shows, and maxHistory how many of its last events and deliveries: it is read again
// every other second.
const maxShown, maxHistory = 200, 200

// Shown are the videos that the page shows.
func (d taskData) Shown() []store.Video { return d.Videos[:min(len(d.Videos), maxShown)] }

func (d *dashboard) task(r *http.Request) (*view, error) {
	id := pathID(r)
	t, err := d.store.Task(r.Context(), store.Everything(), id)
	if err != nil {
		return nil, err
	}
	events, err := d.store.TaskHistory(r.Context(), id, maxHistory+1)
	if err != nil {
		return nil, err
	}
	deliveries, err := d.store.TaskDeliveries(r.Context(), id, maxHistory+1)
	if err != nil {
		return nil, err
	}
	account, err := d.accountOrDeleted(r, t.AccountID)
	if err != nil {
		return nil, err
	}
	data := taskData{Task: t, Account: account, Timeline: timeline(t, events, deliveries)}
	switch u, err := d.store.UploadOfTask(r.Context(), id); {
	case err == nil:
		data.Upload = &uploadLine{Upload: u}
	case !errors.Is(err, store.ErrNotFound):
		return nil, err
	}
	for _, del := range deliveries {
		if del.Status != store.DeliveryCancelled {
			data.Resend = append(data.Resend, del)
		}
	}
	return &view{template: "task", Title: "Task " + t.UpstreamID, Live: 2, Data: data}, nil
}

// timeline is the whole life of a task in its true order. Polls are logged in milliseconds, so times are compared in
// milliseconds. What happened within one stays in the order in which it is added here: causes before effects.
func timeline(t *store.Task, events []store.Event, deliveries []store.Delivery) []moment {
	list := []moment{{
		At: t.CreatedAt, Kind: "register", Title: "Registered",
		Detail: fmt.Sprintf("with %s, until %s", verdict.Count(len(t.Subscriptions), "subscriber"), t.Until),
	}}
	if t.HintedAt != nil {
		list = append(list, moment{At: *t.HintedAt, Kind: "hint", Title: "Hinted", Detail: "the next poll moved to the front"})
	}
	if max(len(events), len(deliveries)) > maxHistory {
		list = append(list, moment{At: t.CreatedAt, Kind: "event", Title: "Earlier events and deliveries are not shown"})
	}
	events, deliveries = events[max(0, len(events)-maxHistory):], deliveries[max(0, len(deliveries)-maxHistory):]
	list = append(list, polls(t)...)
	for _, ev := range events {
		list = append(list, moment{At: ev.CreatedAt, Kind: "event", Title: ev.Type, Detail: webhook.EventID(ev.ID.String())})
	}
	for _, del := range deliveries {
		list = append(list, deliveryMoments(del)...)
	}
	if t.Status == store.TaskWaiting {
		list = append(list, moment{At: t.ExpiresAt, Kind: "end", Title: "Expires unless it becomes ready", Pending: true})
	}
	slices.SortStableFunc(list, func(a, b moment) int { return a.orderedBy().Compare(b.orderedBy()) })
	return list
}

func deliveryMoments(del store.Delivery) (list []moment) {
	link := "/admin/deliveries/" + del.ID.String()
	for _, a := range del.Attempts {
		list = append(list, attemptMoment(del, a, link))
	}
	if del.Status == store.DeliveryPending && del.NextAttemptAt != nil && len(del.Attempts) > 0 {
		list = append(list, moment{
			At: *del.NextAttemptAt, Kind: "end", Title: fmt.Sprintf("Attempt %d of %s is due", del.AttemptCount+1, del.EventType),
			Detail: del.CallbackURL, Link: link, Pending: true,
		})
	}
	return list
}

func attemptMoment(del store.Delivery, a store.Attempt, link string) moment {
	m := moment{
		At: a.At, after: del.CreatedAt, Kind: "good", Link: link,
		Title: fmt.Sprintf("Attempt %d of %s delivered", a.Number, del.EventType),
	}
	if a.Outcome != store.DeliveryDelivered {
		m.Kind, m.Title = "bad", fmt.Sprintf("Attempt %d of %s failed", a.Number, del.EventType)
	}
	m.Detail = del.CallbackURL + " after " + millis(a.DurationMS)
	if a.ResponseStatus != nil {
		m.Detail = fmt.Sprintf("%d from %s", *a.ResponseStatus, m.Detail)
	}
	if a.Error != nil {
		m.Detail += ": " + *a.Error
	}
	if a.ResponseBody != nil {
		m.Body = *a.ResponseBody
	}
	return m
}

// polls are the polls of a task. Those before the log are one moment, and so is each run of polls with the same outcome.
func polls(t *store.Task) (list []moment) {
	if earlier := t.Polls - len(t.PollLog); earlier > 0 {
		list = append(list, moment{
			At: t.CreatedAt, Kind: "poll", Title: "Polled " + times(earlier), Detail: "before the polls that are still logged",
		})
	}
	for i := 0; i < len(t.PollLog); {
		at, outcome := poll(t.PollLog[i])
		last, n := at, 1
		for i+n < len(t.PollLog) {
			again, same := poll(t.PollLog[i+n])
			if same != outcome {
				break
			}
			last, n = again, n+1
		}
		m := moment{At: at, Kind: "poll", Title: "Polled: " + outcome}
		if n > 1 {
			m.Title, m.Detail = fmt.Sprintf("Polled %s: %s", times(n), outcome), "until "+clock(last)
		}
		list = append(list, m)
		i += n
	}
	return list
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func poll(entry string) (at time.Time, outcome string) {
	ms, outcome, _ := strings.Cut(entry, " ")
	n, err := strconv.ParseInt(ms, 10, 64)
	if err != nil {
		return at, outcome
	}
	return time.UnixMilli(n), outcome
}
