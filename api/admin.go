package api

import (
	"context"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// Account is an account of memories.ai.
type Account struct {
	ID                uuid.UUID  `json:"id"`
	Name              string     `json:"name"`
	RequestsPerSecond float64    `json:"requests_per_second"`
	State             string     `json:"state" enum:"active,rate_limited,refused,unavailable"`
	StateReason       *string    `json:"state_reason" doc:"memories.ai's own words."`
	PausedUntil       *time.Time `json:"paused_until"`
	Used              float64    `json:"used" doc:"Requests a second, over the last minute or so."`
	Backlog           int64      `json:"backlog" doc:"Tasks that are polled; can be some seconds old."`
	CreatedAt         time.Time  `json:"created_at"`
}

// NewAccount is an account to be made.
type NewAccount struct {
	Name              string  `json:"name" minLength:"1" maxLength:"100"`
	APIKey            string  `json:"api_key" minLength:"1" maxLength:"1000" doc:"memories.ai's key. Never shown again."`
	RequestsPerSecond float64 `json:"requests_per_second,omitempty" exclusiveMinimum:"0" maximum:"1000" default:"1" doc:"The account's budget."`
}

// AccountPatch changes what it has.
type AccountPatch struct {
	Name              *string  `json:"name,omitempty" minLength:"1" maxLength:"100"`
	APIKey            *string  `json:"api_key,omitempty" minLength:"1" maxLength:"1000"`
	RequestsPerSecond *float64 `json:"requests_per_second,omitempty" exclusiveMinimum:"0" maximum:"1000"`
}

// App is a tenant.
type App struct {
	ID        uuid.UUID `json:"id"`
	Name      string    `json:"name"`
	AccountID uuid.UUID `json:"account_id"`
	CreatedAt time.Time `json:"created_at"`
}

// NewApp is an app to be made.
type NewApp struct {
	Name      string    `json:"name" minLength:"1" maxLength:"100"`
	AccountID uuid.UUID `json:"account_id"`
}

// AppPatch changes what it has.
type AppPatch struct {
	Name      *string    `json:"name,omitempty" minLength:"1" maxLength:"100"`
	AccountID *uuid.UUID `json:"account_id,omitempty" doc:"The app's waiting tasks move with it."`
}

// NewKey is a key to be made.
type NewKey struct {
	Name      string   `json:"name,omitempty" maxLength:"100"`
	RateLimit *float64 `json:"rate_limit,omitempty" exclusiveMinimum:"0" maximum:"100000" doc:"Requests a second, of each instance; absent for the service's default."`
}

// APIKey is an app's key.
type APIKey struct {
	ID         uuid.UUID  `json:"id"`
	Name       string     `json:"name"`
	Prefix     string     `json:"prefix" doc:"Enough to recognise it by."`
	Key        string     `json:"key,omitempty" doc:"The key itself, only when it is made."`
	CreatedAt  time.Time  `json:"created_at"`
	LastUsedAt *time.Time `json:"last_used_at"`
	RevokedAt  *time.Time `json:"revoked_at"`
	RateLimit  *float64   `json:"rate_limit" doc:"Requests a second, of each instance; null for the service's default."`
}

// Stats is the state of the whole service.
type Stats struct {
	Tasks      map[string]int64 `json:"tasks" doc:"By status."`
	Deliveries map[string]int64 `json:"deliveries" doc:"By status."`
	Queues     []Queue          `json:"queues" nullable:"false"`
	Paused     []string         `json:"paused" nullable:"false" doc:"What an operator has paused everywhere: polling, deliveries."`
	Rates      []Rates          `json:"rates" nullable:"false" doc:"Of each minute of the last hour in which anything happened."`
	Lag        Quantiles        `json:"detection_lag" doc:"Of the last hour: from a list's first video, as far as can be known, to the poll that saw it."`
	Latency    Quantiles        `json:"delivery_latency" doc:"Of the last hour: from an event to its delivery."`
	Accounts   []Account        `json:"accounts" nullable:"false"`
	Instances  []Instance       `json:"instances" nullable:"false"`
}

// Rates are what happened in a minute, on all instances together.
type Rates struct {
	Minute         time.Time `json:"minute"`
	Registrations  int64     `json:"registrations"`
	Polls          int64     `json:"polls"`
	Deliveries     int64     `json:"deliveries" doc:"Delivered."`
	FailedAttempts int64     `json:"failed_attempts"`
}

// Quantiles are durations in seconds; null where nothing was measured.
type Quantiles struct {
	P50 *float64 `json:"p50"`
	P95 *float64 `json:"p95"`
	P99 *float64 `json:"p99"`
}

// Queue is how many jobs are in a state.
type Queue struct {
	Name          string  `json:"name"`
	State         string  `json:"state"`
	Count         int64   `json:"count"`
	OldestSeconds float64 `json:"oldest_seconds" doc:"Since the oldest was due."`
}

// Instance is a running memhook.
type Instance struct {
	ID        uuid.UUID `json:"id"`
	Name      string    `json:"name"`
	Version   string    `json:"version"`
	StartedAt time.Time `json:"started_at"`
	BeatAt    time.Time `json:"beat_at"`
}

type (
	createAccountInput struct{ Body NewAccount }
	patchAccountInput  struct {
		IDInput
		Body AccountPatch
	}
	accountOutput  struct{ Body Account }
	createAppInput struct{ Body NewApp }
	appOutput      struct{ Body App }
	patchAppInput  struct {
		IDInput
		Body AppPatch
	}
	createKeyInput struct {
		IDInput
		Body *NewKey `required:"false"`
	}
	listKeysInput struct {
		IDInput
		PageInput
	}
	keyOutput      struct{ Body APIKey }
	revokeKeyInput struct {
		IDInput
		KeyID string `path:"key_id"`
	}
	statsOutput struct{ Body Stats }
)

func (s *server) adminOperations(api huma.API) {
	tag := func(o *huma.Operation) { o.Tags = []string{"admin"} }
	accepted := func(o *huma.Operation) { o.DefaultStatus = http.StatusAccepted }
	created := func(o *huma.Operation) { o.DefaultStatus = http.StatusCreated }
	huma.Post(api, "/accounts", s.createAccount, tag, describe("admin-create-account", "Add an account of memories.ai", "", http.StatusConflict), created)
	huma.Get(api, "/accounts", s.listAccounts, tag, describe("admin-list-accounts", "List accounts", ""))
	huma.Patch(api, "/accounts/{id}", s.patchAccount, tag, describe("admin-update-account", "Change an account", "A new key or budget counts at once.", http.StatusNotFound, http.StatusConflict))
	huma.Delete(api, "/accounts/{id}", s.deleteAccount, tag, describe("admin-delete-account", "Delete an account", "An account that apps use is 409.", http.StatusNotFound, http.StatusConflict))
	huma.Post(api, "/apps", s.createApp, tag, describe("admin-create-app", "Add an app", "", http.StatusNotFound, http.StatusConflict), created)
	huma.Get(api, "/apps", s.listApps, tag, describe("admin-list-apps", "List apps", ""))
	huma.Patch(api, "/apps/{id}", s.patchApp, tag, describe("admin-update-app", "Change an app", "", http.StatusNotFound, http.StatusConflict))
	huma.Delete(api, "/apps/{id}", s.deleteApp, tag, describe("admin-delete-app", "Delete an app", "Its keys work no longer; its endpoints are deleted; its waiting tasks and what was still to be delivered are cancelled.", http.StatusNotFound))
	huma.Post(api, "/apps/{id}/keys", s.createKey, tag, describe("admin-create-key", "Make an API key", "The answer is the only one that has the key.", http.StatusNotFound), created)
	huma.Get(api, "/apps/{id}/keys", s.listKeys, tag, describe("admin-list-keys", "List an app's keys", "", http.StatusNotFound))
	huma.Delete(api, "/apps/{id}/keys/{key_id}", s.revokeKey, tag, describe("admin-revoke-key", "Revoke a key", "It works no longer within a second.", http.StatusNotFound))
	huma.Get(api, "/tasks", s.adminTasks, tag, describe("admin-list-tasks", "List tasks across apps", "Newest first."))
	huma.Get(api, "/deliveries", s.adminDeliveries, tag, describe("admin-list-deliveries", "List deliveries across apps", "Newest first, without their attempts."))
	huma.Get(api, "/endpoints", s.adminEndpoints, tag, describe("admin-list-endpoints", "List endpoints across apps", "Newest first."))
	huma.Get(api, "/events", s.adminEvents, tag, describe("admin-list-events", "The feed across apps", "Oldest first, as an app's own."))
	huma.Get(api, "/tasks/{id}", s.adminTask, tag, describe("admin-get-task", "Read a task of any app", "", http.StatusNotFound))
	huma.Get(api, "/deliveries/{id}", s.adminDelivery, tag, describe("admin-get-delivery", "Read a delivery of any app with its attempts", "", http.StatusNotFound))
	huma.Get(api, "/endpoints/{id}", s.adminEndpoint, tag, describe("admin-get-endpoint", "Read an endpoint of any app", "", http.StatusNotFound))
	huma.Post(api, "/tasks/{id}/poll", s.adminPoll, tag, describe("admin-poll-task", "Poll a task at the next slot", "", http.StatusNotFound, http.StatusConflict), accepted)
	huma.Post(api, "/deliveries/{id}/resend", s.adminResend, tag, describe("admin-resend-delivery", "Send a delivery again", "", http.StatusNotFound, http.StatusConflict), accepted)
	huma.Post(api, "/endpoints/{id}/enable", s.adminEnable, tag, describe("admin-enable-endpoint", "Enable an endpoint", "", http.StatusNotFound))
	huma.Post(api, "/endpoints/{id}/disable", s.adminDisable, tag, describe("admin-disable-endpoint", "Disable an endpoint", "What it had still to get waits until it is enabled.", http.StatusNotFound))
	huma.Post(api, "/endpoints/{id}/recover", s.adminRecover, tag, describe("admin-recover-endpoint", "Send again what has failed since", "", http.StatusNotFound), accepted)
	for path, queues := range store.Pausable {
		for verb, pause := range map[string]bool{"pause": true, "resume": false} {
			huma.Post(api, "/"+path+"/"+verb, s.pauser(queues, pause), tag, describe("admin-"+verb+"-"+path, "Everywhere at once: "+verb+" "+path, ""))
		}
	}
	huma.Get(api, "/stats", s.stats, tag, describe("admin-stats", "The state of the whole service", ""))
}

func (s *server) createAccount(ctx context.Context, in *createAccountInput) (*accountOutput, error) {
	a, err := s.store.CreateAccount(ctx, in.Body.Name, in.Body.APIKey, in.Body.RequestsPerSecond)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return s.answerAccount(ctx, a)
}

// answerAccount answers with one account and its backlog.
func (s *server) answerAccount(ctx context.Context, a store.Account) (*accountOutput, error) {
	backlogs, err := s.store.Backlogs(ctx)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return &accountOutput{wireAccount(&a, backlogs)}, nil
}

func (s *server) listAccounts(ctx context.Context, in *PageInput) (*listOutput[Account], error) {
	page, err := in.page()
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	list, err := s.store.Accounts(ctx, page)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	backlogs, err := s.store.Backlogs(ctx)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return listOf(list, page.Limit, func(a *store.Account) uuid.UUID { return a.ID }, func(a *store.Account) Account { return wireAccount(a, backlogs) }), nil
}

func (s *server) patchAccount(ctx context.Context, in *patchAccountInput) (*accountOutput, error) {
	id, err := in.id()
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	a, err := s.store.UpdateAccount(ctx, id, store.AccountChange{Name: in.Body.Name, APIKey: in.Body.APIKey, RequestsPerSecond: in.Body.RequestsPerSecond})
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return s.answerAccount(ctx, a)
}

func (s *server) deleteAccount(ctx context.Context, in *IDInput) (*struct{}, error) {
	id, err := in.id()
	if err == nil {
		err = s.store.DeleteAccount(ctx, id)
	}
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return nil, nil
}

func (s *server) createApp(ctx context.Context, in *createAppInput) (*appOutput, error) {
	a, err := s.store.CreateApp(ctx, in.Body.Name, in.Body.AccountID)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return &appOutput{wireApp(&a)}, nil
}

func (s *server) listApps(ctx context.Context, in *PageInput) (*listOutput[App], error) {
	page, err := in.page()
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	list, err := s.store.Apps(ctx, page)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return listOf(list, page.Limit, func(a *store.App) uuid.UUID { return a.ID }, wireApp), nil
}

func (s *server) patchApp(ctx context.Context, in *patchAppInput) (*appOutput, error) {
	id, err := in.id()
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	a, err := s.store.UpdateApp(ctx, id, in.Body.Name, in.Body.AccountID)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return &appOutput{wireApp(&a)}, nil
}

func (s *server) deleteApp(ctx context.Context, in *IDInput) (*struct{}, error) {
	id, err := in.id()
	if err == nil {
		err = s.store.DeleteApp(ctx, id)
	}
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return nil, nil
}

func (s *server) createKey(ctx context.Context, in *createKeyInput) (*keyOutput, error) {
	id, err := in.id()
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	var set NewKey
	if in.Body != nil {
		set = *in.Body
	}
	k, plain, err := s.store.CreateKey(ctx, id, set.Name, set.RateLimit)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	out := wireKey(&k)
	out.Key = plain
	return &keyOutput{out}, nil
}

func (s *server) listKeys(ctx context.Context, in *listKeysInput) (*listOutput[APIKey], error) {
	id, err := in.id()
	if err == nil {
		_, err = s.store.App(ctx, id)
	}
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	page, err := in.page()
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	list, err := s.store.Keys(ctx, id, page)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return listOf(list, page.Limit, func(k *store.APIKey) uuid.UUID { return k.ID }, wireKey), nil
}

func (s *server) revokeKey(ctx context.Context, in *revokeKeyInput) (*struct{}, error) {
	app, err := in.id()
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	key, err := parseID(in.KeyID)
	if err == nil {
		err = s.store.RevokeKey(ctx, app, key)
	}
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return nil, nil
}

func (s *server) stats(ctx context.Context, _ *struct{}) (*statsOutput, error) {
	st, err := s.store.Stats(ctx, math.MaxInt32)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	out := &statsOutput{Stats{Tasks: st.Tasks, Deliveries: st.Deliveries, Queues: make([]Queue, len(st.Jobs)), Accounts: make([]Account, len(st.Accounts)), Instances: make([]Instance, len(st.Instances))}}
	for i, q := range st.Jobs {
		out.Body.Queues[i] = Queue{q.Queue, q.State, q.Count, q.OldestSecs}
	}
	for i := range st.Accounts {
		out.Body.Accounts[i] = wireAccount(&st.Accounts[i], st.Backlogs)
	}
	out.Body.Paused, out.Body.Rates = []string{}, make([]Rates, len(st.Minutes))
	for path, queues := range store.Pausable {
		if slices.ContainsFunc(queues, func(queue string) bool { return st.Paused[queue] }) {
			out.Body.Paused = append(out.Body.Paused, path)
		}
	}
	slices.Sort(out.Body.Paused)
	for i, m := range st.Minutes {
		out.Body.Rates[i] = Rates{m.Minute.UTC(), m.Registrations, m.Polls, m.Deliveries, m.FailedAttempts}
	}
	total := store.Totals(st.Minutes)
	out.Body.Lag, out.Body.Latency = quantiles(total.DetectionLag), quantiles(total.Latency)
	for i, in := range st.Instances {
		out.Body.Instances[i] = Instance{in.ID, in.Name, in.Version, in.StartedAt.UTC(), in.BeatAt.UTC()}
	}
	return out, nil
}

func wireAccount(a *store.Account, backlogs map[uuid.UUID]int64) Account {
	return Account{a.ID, a.Name, a.RequestsPerSecond, a.State, a.StateReason, utc(a.PausedUntil), a.Used, backlogs[a.ID], a.CreatedAt.UTC()}
}

func quantiles(h store.Histogram) Quantiles {
	at := func(q float64) *float64 {
		d, ok := h.Quantile(q)
		if !ok {
			return nil
		}
		return new(d.Seconds())
	}
	return Quantiles{at(0.5), at(0.95), at(0.99)}
}

func wireApp(a *store.App) App { return App{a.ID, a.Name, a.AccountID, a.CreatedAt.UTC()} }

func wireKey(k *store.APIKey) APIKey {
	return APIKey{ID: k.ID, Name: k.Name, Prefix: k.Prefix, CreatedAt: k.CreatedAt.UTC(), LastUsedAt: utc(k.LastUsedAt), RevokedAt: utc(k.RevokedAt), RateLimit: k.RateLimit}
}

type (
	adminTasksInput struct {
		AppID string `query:"app_id"`
		TasksFilter
	}
	adminDeliveriesInput struct {
		AppID string `query:"app_id"`
		DeliveriesFilter
	}
	adminEndpointsInput struct {
		PageInput
		AppID string `query:"app_id"`
	}
	adminEventsInput struct {
		AppID string `query:"app_id"`
		EventsFilter
	}
)

func (s *server) adminTask(ctx context.Context, in *IDInput) (*taskOutput, error) {
	return s.taskOf(ctx, store.Everything(), in)
}

func (s *server) adminDelivery(ctx context.Context, in *IDInput) (*deliveryOutput, error) {
	return s.deliveryOf(ctx, store.Everything(), in)
}

func (s *server) adminEndpoint(ctx context.Context, in *IDInput) (*endpointOutput, error) {
	return s.endpointOf(ctx, store.Everything(), in)
}

func (s *server) adminEvents(ctx context.Context, in *adminEventsInput) (*eventListOutput, error) {
	scope, err := scopeFilter(in.AppID)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return s.eventsOf(ctx, scope, &in.EventsFilter)
}

func (s *server) adminPoll(ctx context.Context, in *IDInput) (*taskOutput, error) {
	id, err := in.id()
	if err == nil {
		err = s.store.PollTask(ctx, store.Everything(), id)
	}
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	t, err := s.store.Task(ctx, store.Everything(), id)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return &taskOutput{wireTask(t)}, nil
}

func (s *server) adminResend(ctx context.Context, in *IDInput) (*deliveryOutput, error) {
	return s.resendOf(ctx, store.Everything(), in)
}

func (s *server) adminEnable(ctx context.Context, in *IDInput) (*endpointOutput, error) {
	return s.turn(ctx, store.Everything(), in, true)
}

func (s *server) adminDisable(ctx context.Context, in *IDInput) (*endpointOutput, error) {
	return s.turn(ctx, store.Everything(), in, false)
}

func (s *server) adminRecover(ctx context.Context, in *recoverInput) (*recoverOutput, error) {
	return s.recoverOf(ctx, store.Everything(), in)
}

// pauser makes the handler that pauses or resumes queues.
func (s *server) pauser(queues []string, pause bool) func(context.Context, *struct{}) (*struct{}, error) {
	return func(ctx context.Context, _ *struct{}) (*struct{}, error) {
		if err := s.store.PauseQueues(ctx, queues, pause); err != nil {
			return nil, s.fail(ctx, err)
		}
		return nil, nil
	}
}

func (s *server) adminTasks(ctx context.Context, in *adminTasksInput) (*listOutput[Task], error) {
	scope, err := scopeFilter(in.AppID)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return s.tasksOf(ctx, scope, &in.TasksFilter)
}

func (s *server) adminDeliveries(ctx context.Context, in *adminDeliveriesInput) (*listOutput[Delivery], error) {
	scope, err := scopeFilter(in.AppID)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return s.deliveriesOf(ctx, scope, &in.DeliveriesFilter)
}

func (s *server) adminEndpoints(ctx context.Context, in *adminEndpointsInput) (*listOutput[Endpoint], error) {
	scope, err := scopeFilter(in.AppID)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return s.endpointsOf(ctx, scope, in.PageInput)
}
