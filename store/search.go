package store

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

const (
	// SearchMost is how many finds of each kind are shown.
	SearchMost = 20
	// searchTimeout ends a search that the indexes do not help, in PostgreSQL's words.
	searchTimeout = "3s"
	// leastPrefix is how many characters the beginning of something has at least. A shorter text is searched for as a whole.
	leastPrefix = 3
	// leastIDPrefix is how many hexadecimal digits of an id a search needs.
	leastIDPrefix = 6
	// recentTasks is how many of the newest tasks are looked at for the beginning of a metadata value. A whole value is found
	// in all of them.
	recentTasks = 10_000
)

// Found is what a search found, the newest first.
type Found struct {
	Tasks      []Task // by id, task id, or metadata value
	Deliveries []Delivery
	Endpoints  []Endpoint // by id, URL, or host
	Uploads    []Upload   // by id, or the URL of a video
}

// Search finds tasks, deliveries, endpoints and uploads by the beginning of a task id, of an id, of a webhook-id, of a callback
// URL or its host, or of a metadata value, and uploads by a whole URL of a video. It returns of each no more than most.
// It returns ErrSearchTimeout where the indexes do not help.
func (s *Store) Search(ctx context.Context, scope Scope, text string, most int) (found Found, err error) {
	err = s.tx(ctx, "search", func(tx pgx.Tx) error {
		// Each arm has an index; what the planner expects of a prefix that it does not know would lead it past them.
		_, err := tx.Exec(ctx, `set local enable_seqscan = off; set local statement_timeout = '`+searchTimeout+`'`)
		if err != nil {
			return err
		}
		q := search{tx: tx, scope: scope, text: text, most: most}
		q.from, q.to, q.isID = idRange(text)
		if found.Tasks, err = q.tasks(ctx); err != nil {
			return err
		}
		if found.Deliveries, err = q.deliveries(ctx, found.Tasks); err != nil {
			return err
		}
		if found.Endpoints, err = q.endpoints(ctx); err != nil {
			return err
		}
		found.Uploads, err = q.uploads(ctx)
		return err
	})
	if sqlState(err) == "57014" && ctx.Err() == nil {
		err = ErrSearchTimeout
	}
	return found, err
}

type search struct {
	tx    pgx.Tx
	scope Scope
	text  string
	most  int

	from, to uuid.UUID // the ids that begin as text does
	isID     bool      // text may be the beginning of an id
}

// short reports whether the text is searched for as a whole.
func (q search) short() bool { return utf8.RuneCountInString(q.text) < leastPrefix }

// above follows in byte order whatever begins with a text; for a search of a short one, the text alone: what stands between the
// two has a control character.
func (q search) above(text string) string {
	if q.short() {
		return text + "\x01"
	}
	return text + "\U0010FFFF"
}

// asURL returns the beginning of a callback URL as endpoints have it: without a query or a default port, scheme and host in lower
// case.
func asURL(text string) string {
	text, _, _ = strings.Cut(text, "?")
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return text
	}
	host, path, slash := strings.Cut(rest, "/")
	if slash {
		path = "/" + path
	}
	scheme = strings.ToLower(scheme)
	port := map[string]string{"http": ":80", "https": ":443"}[scheme]
	return scheme + "://" + strings.TrimSuffix(strings.ToLower(host), port) + path
}

// idRange returns the ids that begin as text does, which may be a webhook-id.
func idRange(text string) (from, to uuid.UUID, ok bool) {
	digits := strings.ReplaceAll(strings.TrimPrefix(strings.ToLower(text), "evt_"), "-", "")
	if len(digits) < leastIDPrefix || len(digits) > 32 {
		return from, to, false
	}
	low, err := hex.DecodeString(digits + strings.Repeat("0", 32-len(digits)))
	if err != nil {
		return from, to, false
	}
	high, err := hex.DecodeString(digits + strings.Repeat("f", 32-len(digits)))
	if err != nil {
		return from, to, false
	}
	return uuid.UUID(low), uuid.UUID(high), true
}

func (q search) tasks(ctx context.Context) ([]Task, error) {
	literal, err := json.Marshal(q.text)
	if err != nil {
		return nil, err
	}
	recent := recentTasks
	if q.short() {
		recent = 0
	}
	list, err := many[Task](ctx, q.tx, `
		with valued as materialized (
			select id from tasks
			where metadata <> '{}' and metadata @? $5::jsonpath and ($1::uuid is null or app_id = $1)
		), recent as materialized (
			select id, metadata from tasks where $1::uuid is null or app_id = $1 order by id desc limit $6
		), hits as (
			(select t.id
			from (select id from apps where $1::uuid is null or id = $1) a
			cross join lateral (
				select id from tasks where app_id = a.id and task_id ~>=~ $2 and task_id ~<~ $3 order by task_id using ~<~ limit $4
			) t
			limit $4)
			union all
			(select id from tasks where $7 and id between $8 and $9 and ($1::uuid is null or app_id = $1) order by id desc limit $4)
			union all
			(select id from valued order by id desc limit $4)
			union all
			(select id from recent where metadata @? $10::jsonpath order by id desc limit $4)
		), page as (
			select `+taskListColumns+`
			from tasks
			where id in (select id from hits)
			order by task_id = $2 desc, id desc
			limit $4
		), `+sizedTasks+`
		select `+sizedTaskColumns+` from sized order by task_id = $2 desc, id desc`,
		q.scope.arg(), q.text, q.above(q.text), q.most, "$.* ? (@ == "+string(literal)+")", recent, q.isID, q.from, q.to,
		"$.* ? (@ starts with "+string(literal)+")") // a twelfth of the time that jsonb_each_text takes
	return list, wrapped("search tasks", err)
}

// deliveries finds deliveries by their own ids and those of their events, and those of tasks that were found.
func (q search) deliveries(ctx context.Context, tasks []Task) ([]Delivery, error) {
	ids := distinct(tasks, func(t Task) uuid.UUID { return t.ID })
	list, err := many[Delivery](ctx, q.tx, `
		with found as materialized (
			select id from events
			where $4 and id between $5 and $6 and ($1::uuid is null or app_id = $1) order by id desc limit $2
		), hits as (
			(select id from deliveries where $4 and id between $5 and $6 and ($1::uuid is null or app_id = $1) order by id desc limit $2)
			union all
			(select d.id from found f join deliveries d on d.event_id = f.id order by d.id desc limit $2)
			union all
			(select id from deliveries where task = any($3) order by id desc limit $2)
		)
		select `+deliveryColumns+`, `+callbackURLOf("e", "d")+` as callback_url
		from deliveries d
		join endpoints e on e.id = d.endpoint_id
		where d.id in (select id from hits)
		order by d.id desc
		limit $2`, q.scope.arg(), q.most, ids, q.isID, q.from, q.to)
	return list, wrapped("search deliveries", err)
}

func (q search) endpoints(ctx context.Context) ([]Endpoint, error) {
	prefixes := []string{asURL(q.text), asURL("https://" + q.text), asURL("http://" + q.text)}
	ends := make([]string, len(prefixes))
	for i, p := range prefixes {
		ends[i] = q.above(p)
	}
	list, err := many[Endpoint](ctx, q.tx, `
		with hits as (
			(select id from endpoints
			where $5 and id between $6 and $7 and deleted_at is null and ($1::uuid is null or app_id = $1) limit $2)
			union all
			(select e.id
			from unnest($3::text[], $4::text[]) p (low, high)
			cross join lateral (
				select id from endpoints
				where url ~>=~ p.low and url ~<~ p.high and deleted_at is null and ($1::uuid is null or app_id = $1)
				limit $2
			) e
			limit $2)
			union all
			(select e.id from endpoints e
			where right(e.url, 2) = '/*' and e.deleted_at is null and ($1::uuid is null or e.app_id = $1)
				and exists (select 1 from unnest($3::text[]) p (low) where starts_with(p.low, left(e.url, -1)))
			order by length(e.url) desc
			limit $2)
		)
		select `+endpointColumns+`
		from endpoints e
		where e.id in (select id from hits)
		order by e.id desc
		limit $2`, q.scope.arg(), q.most, prefixes, ends, q.isID, q.from, q.to)
	return list, wrapped("search endpoints", err)
}

func (q search) uploads(ctx context.Context) ([]Upload, error) {
	list, err := many[Upload](ctx, q.tx, `
		with asked as materialized (
			select id from uploads where (request @> $6::jsonb or request @> $7::jsonb) and ($1::uuid is null or app_id = $1)
		), hits as (
			(select id from uploads where $3 and id between $4 and $5 and ($1::uuid is null or app_id = $1) order by id desc limit $2)
			union all
			(select id from asked order by id desc limit $2)
		)
		select `+uploadColumns+`
		from uploads
		where id in (select id from hits)
		order by id desc
		limit $2`, q.scope.arg(), q.most, q.isID, q.from, q.to,
		UploadRequest{URLs: []string{q.text}}, UploadRequest{SourceURL: q.text})
	return list, wrapped("search uploads", err)
}
