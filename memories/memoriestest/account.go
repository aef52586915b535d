package memoriestest

import (
	"net/http"
	"strings"
	"time"
)

// Account is one customer of the service.
type Account struct {
	ID   string   `json:"id"`
	Keys []string `json:"keys"`
	// RequestsPerSecond limits polls, in both generations together, and one more is let pass in any window (a
	// second, or the time of one request where that is longer). 0 means no limit.
	RequestsPerSecond float64 `json:"requests_per_second"`
	UploadsPerMinute  float64 `json:"uploads_per_minute"` // 0 means no limit
	// Refusal is the code that all its requests get, such as "0401"; "0001" is the outage in which the
	// service calls every task's parameters invalid. The Datalake reports the same by its HTTP statuses.
	Refusal string `json:"refusal"`
	// Bearer lets the Datalake take the keys as "Bearer <key>" only.
	Bearer bool `json:"bearer"`
}

type account struct {
	Account
	limited  bool // RequestsPerSecond and UploadsPerMinute count, rather than the service's own
	requests []time.Time
	uploads  []time.Time
}

// Set lets keys share one account, from now on with these properties.
func (s *Server) Set(a Account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := &account{Account: a, limited: true}
	for _, existing := range s.accounts {
		if existing.ID == a.ID {
			changed.requests, changed.uploads = existing.requests, existing.uploads
		}
	}
	for _, k := range a.Keys {
		s.accounts[k] = changed
	}
}

// SetAccount is Set for what most tests need.
func (s *Server) SetAccount(id string, keys []string, requestsPerSecond float64, refusal string) {
	s.Set(Account{ID: id, Keys: keys, RequestsPerSecond: requestsPerSecond, Refusal: refusal})
}

func (s *Server) accountOf(key string) *account {
	a := s.accounts[key]
	if a == nil {
		a = &account{Account: Account{ID: key}}
		s.accounts[key] = a
	}
	return a
}

// request is what a request to either generation begins with.
type request struct {
	key     string
	account *account
	exceeds bool   // its account's limit
	refusal string // the code that it gets whatever it asks, or ""
	bearer  bool   // the account's keys must be sent as Bearer, and this one was not
}

// begin counts a request of a kind, whose account's limit is perSecond and whose times are kept at times.
func (s *Server) begin(r *http.Request, datalake, upload bool, now time.Time) request {
	sent := r.Header.Get("Authorization")
	key, isBearer := strings.CutPrefix(sent, "Bearer ")
	a := s.accountOf(key)
	q := request{key: key, account: a, refusal: a.Refusal, bearer: datalake && a.Bearer && !isBearer}
	foreign := "sk-mai-"
	if datalake {
		foreign = "sk-mavi-"
	}
	if key == "" || strings.HasPrefix(key, foreign) || (!datalake && isBearer) {
		q.refusal = "0401"
	}
	rps, perMinute := s.cfg.RequestsPerSecond, s.cfg.UploadsPerMinute
	if a.limited {
		rps, perMinute = a.RequestsPerSecond, a.UploadsPerMinute
	}
	if upload {
		s.stats.Uploads++
		var most int
		q.exceeds = count(&a.uploads, now, perMinute/60, time.Minute, &most)
		if q.exceeds {
			s.stats.OverUploads++
		}
		return q
	}
	s.stats.Requests++
	if q.exceeds = count(&a.requests, now, rps, time.Second, &s.stats.MaxPerWindow); q.exceeds {
		s.stats.Violations++
		if len(s.stats.ViolatedAt) < 1000 {
			s.stats.ViolatedAt = append(s.stats.ViolatedAt, now)
		}
	}
	return q
}

// count notes a request and tells whether it exceeds the limit: more than one request over the limit in
// any window (or in any time of one request, where that is longer).
func count(times *[]time.Time, now time.Time, perSecond float64, window time.Duration, most *int) (exceeds bool) {
	if one := time.Duration(float64(time.Second) / max(perSecond, 1e-6)); perSecond > 0 && one > window {
		window = one
	}
	kept := (*times)[:0]
	for _, at := range *times {
		if now.Sub(at) < window {
			kept = append(kept, at)
		}
	}
	kept = append(kept, now)
	*times = kept
	*most = max(*most, len(*times))
	return perSecond > 0 && float64(len(*times)) > perSecond*window.Seconds()+1+1e-9
}
