package dashboard

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
)

// pageRows is how many rows a list shows.
const pageRows = 50

// listData is a page of a list with its filters.
type listData[T any] struct {
	Rows   []T
	Filter map[string]string
	Apps   map[string]string // names by id
	Next   string            // the link to the next page
}

// cursor reads the page that is asked for.
func cursor(r *http.Request) store.Page {
	p := store.Page{Limit: pageRows}
	if raw, err := base64.RawURLEncoding.DecodeString(r.URL.Query().Get("cursor")); err == nil && len(raw) == len(p.Before) {
		p.Before = uuid.UUID(raw)
	}
	return p
}

// next links to the page after the one that ends with last.
func next(r *http.Request, rows int, last uuid.UUID) string {
	if rows < pageRows {
		return ""
	}
	return withQuery(r.URL.RequestURI(), "cursor", base64.RawURLEncoding.EncodeToString(last[:]))
}

// filters reads the named query parameters.
func filters(r *http.Request, names ...string) map[string]string {
	out := make(map[string]string, len(names))
	for _, name := range names {
		out[name] = strings.TrimSpace(strings.ReplaceAll(r.URL.Query().Get(name), "\x00", ""))
	}
	return out
}

// filterID reads a filter that is an id; what is none finds nothing rather than everything.
func filterID(s string) uuid.UUID {
	if s == "" {
		return uuid.Nil
	}
	id, err := uuid.Parse(s)
	if err != nil || id == uuid.Nil {
		return uuid.Max
	}
	return id
}

// filterScope reads the filter by app: everything where it is absent.
func filterScope(s string) store.Scope {
	if s == "" {
		return store.Everything()
	}
	return store.OfApp(filterID(s))
}

// appNames gives the apps' names by id, for lists.
func (d *dashboard) appNames(r *http.Request) (map[string]string, error) {
	apps, err := d.store.Apps(r.Context(), store.Page{Limit: 500})
	if err != nil {
		return nil, err
	}
	names := make(map[string]string, len(apps))
	for _, a := range apps {
		names[a.ID.String()] = a.Name
	}
	return names, nil
}

func (d *dashboard) tasks(r *http.Request) (*view, error) {
	data := listData[store.Task]{Filter: filters(r, "task_id", "status", "app_id")}
	f := store.TaskFilter{Scope: filterScope(data.Filter["app_id"]), Status: data.Filter["status"], UpstreamID: data.Filter["task_id"]}
	var err error
	if data.Rows, err = d.store.Tasks(r.Context(), f, cursor(r)); err != nil {
		return nil, err
	}
	if data.Apps, err = d.appNames(r); err != nil {
		return nil, err
	}
	if n := len(data.Rows); n > 0 {
		data.Next = next(r, n, data.Rows[n-1].ID)
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
	Pending bool // it is still to come
}

type taskData struct {
	*store.Task
	Account  store.Account
	Timeline []moment
	Resend   []store.Delivery
}

func (d *dashboard) task(r *http.Request) (*view, error) {
	id, err := pathID(r)
	if err != nil {
		return nil, err
	}
	t, err := d.store.Task(r.Context(), store.Everything(), id)
	if err != nil {
		return nil, err
	}
	events, err := d.store.TaskEvents(r.Context(), id)
	if err != nil {
		return nil, err
	}
	deliveries, err := d.store.TaskDeliveries(r.Context(), id)
	if err != nil {
		return nil, err
	}
	account, err := d.store.Account(r.Context(), t.AccountID)
	if err != nil {
		account.Name = "deleted"
	}
	return &view{template: "task", Title: "Task " + t.UpstreamID, Live: 2, Data: taskData{t, account, timeline(t, events, deliveries), deliveries}}, nil
}

// timeline is a task's whole life, oldest first.
func timeline(t *store.Task, events []store.Event, deliveries []store.Delivery) []moment {
	list := []moment{{At: t.CreatedAt, Kind: "register", Title: "Registered", Detail: fmt.Sprintf("subscribers: %d, until %s", len(t.Subscriptions), t.Until)}}
	list = append(list, polls(t)...)
	if t.HintedAt != nil {
		list = append(list, moment{At: *t.HintedAt, Kind: "hint", Title: "Hinted", Detail: "its next poll moved to the front"})
	}
	for _, ev := range events {
		list = append(list, moment{At: ev.CreatedAt, Kind: "event", Title: ev.Type, Detail: webhook.EventID(ev.ID.String())})
	}
	for _, del := range deliveries {
		link := "/admin/deliveries/" + del.ID.String()
		for _, a := range del.Attempts {
			list = append(list, attemptMoment(del, a, link))
		}
		if del.Status == store.DeliveryPending && del.NextAttemptAt != nil && len(del.Attempts) > 0 {
			list = append(list, moment{At: *del.NextAttemptAt, Kind: "end", Title: fmt.Sprintf("Attempt %d of %s is due", del.AttemptCount+1, del.EventType), Detail: del.CallbackURL, Link: link, Pending: true})
		}
	}
	if t.Status == store.TaskWaiting {
		list = append(list, moment{At: t.ExpiresAt, Kind: "end", Title: "Expires, if nothing comes", Pending: true})
	}
	slices.SortStableFunc(list, func(a, b moment) int { return a.At.Compare(b.At) })
	return list
}

func attemptMoment(del store.Delivery, a store.Attempt, link string) moment {
	m := moment{At: a.At, Kind: "good", Title: fmt.Sprintf("Attempt %d of %s delivered", a.Number, del.EventType), Link: link}
	if a.Outcome != store.DeliveryDelivered {
		m.Kind, m.Title = "bad", fmt.Sprintf("Attempt %d of %s failed", a.Number, del.EventType)
	}
	m.Detail = del.CallbackURL + " after " + span(time.Duration(a.DurationMS)*time.Millisecond)
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

// polls are the polls of a task: those before the log together, and of the log, runs of the same outcome
// together.
func polls(t *store.Task) (list []moment) {
	if earlier := t.Polls - len(t.PollLog); earlier > 0 {
		list = append(list, moment{At: t.CreatedAt, Kind: "poll", Title: fmt.Sprintf("Polled %d times", earlier), Detail: "before the polls that are kept"})
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
			m.Title, m.Detail = fmt.Sprintf("Polled %d times: %s", n, outcome), "until "+clock(last)
		}
		list = append(list, m)
		i += n
	}
	return list
}

func poll(entry string) (at time.Time, outcome string) {
	ms, outcome, _ := strings.Cut(entry, " ")
	n, err := strconv.ParseInt(ms, 10, 64)
	if err != nil {
		return at, outcome
	}
	return time.UnixMilli(n), outcome
}

func (d *dashboard) pollTask(r *http.Request) (to, done string, err error) {
	id, err := pathID(r)
	if err == nil {
		err = d.store.PollTask(r.Context(), store.Everything(), id)
	}
	return "/admin/tasks/" + id.String(), "It is polled at the account's next slot", err
}

func (d *dashboard) cancelTask(r *http.Request) (to, done string, err error) {
	id, err := pathID(r)
	if err == nil {
		err = d.store.CancelTask(r.Context(), store.Everything(), id)
	}
	return "/admin/tasks/" + id.String(), "Cancelled", err
}
