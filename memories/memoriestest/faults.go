package memoriestest

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// The kinds of fault.
const (
	FaultRateLimited    = "rate_limited"     // code 0429 with HTTP 200
	FaultRateLimitedInt = "rate_limited_int" // code 429 as a number
	FaultHTTP429        = "http_429"         // HTTP 429 with Retry-After: 1
	FaultCode           = "code"             // the fault's own code, with HTTP 200
	FaultHTML           = "html_502"         // HTTP 502 with a page
	FaultHTML200        = "html_200"         // HTTP 200 with a page
	FaultSpring         = "spring_503"       // HTTP 503 with Spring's error body
	FaultHang           = "hang"             // no answer until the client gives up
	FaultCut            = "cut"              // the connection breaks in the middle of the answer
	FaultTruncated      = "truncated"        // half an answer
	FaultForeign        = "foreign"          // an answer about another task
	FaultHuge           = "huge"             // 10 MB
	FaultNotUTF8        = "not_utf8"         // invalid UTF-8
)

// Fault is one poll's misfortune.
type Fault struct {
	Kind string `json:"kind"`
	Code string `json:"code,omitempty"` // of FaultCode
}

var refusals = map[string]string{
	"0001": "invalid parameters", "0003": "missing parameters", "0401": "API key invalid", "0402": "credits used up",
	"0403": "developer account deactivated", "0409": "repeated operation", "9009": "permission denied",
}

func (s *Server) nextFault(t *task) (Fault, bool) {
	var f Fault
	switch {
	case len(s.faults) > 0:
		f, s.faults = s.faults[0], s.faults[1:]
	case t != nil && len(t.Faults) > 0:
		f, t.Faults = t.Faults[0], t.Faults[1:]
	default:
		return f, false
	}
	s.stats.Faults[f.Kind]++
	return f, true
}

func (f Fault) answer(w http.ResponseWriter, r *http.Request, id string) {
	const page = "<!DOCTYPE html><html><head><title>nginx</title></head><body><h1>Bad Gateway</h1></body></html>"
	switch f.Kind {
	case FaultRateLimited:
		envelope(w, http.StatusOK, "0429", "Request has exceeded the limit.", nil)
	case FaultRateLimitedInt:
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"code":429,"msg":"Request has exceeded the limit.","data":null}`)
	case FaultHTTP429:
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
	case FaultCode:
		envelope(w, http.StatusOK, f.Code, refusals[f.Code], nil)
	case FaultHTML:
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusBadGateway)
		_, _ = io.WriteString(w, page)
	case FaultHTML200:
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, page)
	case FaultSpring:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = fmt.Fprintf(w, `{"timestamp":%q,"path":%q,"status":503,"error":"Service Unavailable","requestId":"1"}`, time.Now().UTC().Format(time.RFC3339), r.URL.Path)
	case FaultHang:
		<-r.Context().Done()
	case FaultCut:
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, `{"code":"0000","msg":"succ`)
		panic(http.ErrAbortHandler)
	case FaultTruncated:
		_, _ = io.WriteString(w, `{"code":"0000","msg":"success","data":{"taskId":"`+id+`","video_ids":["PI-1"`)
	case FaultForeign:
		envelope(w, http.StatusOK, "0000", "success", map[string]any{"taskId": "foreign-" + id, "video_ids": []string{"PI-000000000000000666"}})
	case FaultHuge:
		_, _ = io.WriteString(w, `{"code":"0000","msg":"`)
		for range 160 {
			_, _ = io.WriteString(w, strings.Repeat("x", 64<<10))
		}
		_, _ = io.WriteString(w, `"}`)
	case FaultNotUTF8:
		_, _ = io.WriteString(w, "{\"code\":\"0000\",\"data\":{\"taskId\":\""+id+"\",\"video_ids\":[\"PI-\xff\xfe\"]}}")
	}
}
