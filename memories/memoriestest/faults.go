package memoriestest

import (
	"io"
	"net/http"
	"strings"
	"time"
)

// The kinds of fault.
const (
	FaultRateLimited    = "rate_limited"     // code 0429 with HTTP 200; of the Datalake 429, retry_after in header and body
	FaultRateLimitedInt = "rate_limited_int" // code 429 as a number; of the Datalake 429, retry_after in the body alone
	FaultHTTP429        = "http_429"         // HTTP 429 with Retry-After: 1 and no body
	FaultCode           = "code"             // the fault's own code, with HTTP 200 or in the Datalake's way
	FaultHTML           = "html_502"         // HTTP 502 with a page
	FaultHTML200        = "html_200"         // HTTP 200 with a page
	FaultSpring         = "spring_503"       // HTTP 503 with Spring's error body, or the Datalake's with retry_after
	FaultFirewall       = "html_403"         // HTTP 403 with a page
	FaultRedirect       = "redirect"         // HTTP 302
	FaultNotReady       = "not_ready"        // HTTP 409 video_not_ready with retry_after 2 (Datalake; of v1 an empty list)
	FaultNotFound       = "not_found"        // HTTP 404 (Datalake; of v1 Spring's, for a path that is not served)
	FaultDeprecated     = "deprecated"       // HTTP 400 that says deprecated
	FaultAsksBearer     = "asks_bearer"      // HTTP 401 that asks for Bearer
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
	switch f.Kind {
	case FaultRateLimited:
		envelope(w, http.StatusOK, "0429", "Request has exceeded the limit.", nil)
	case FaultRateLimitedInt:
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"code":429,"msg":"Request has exceeded the limit.","data":null}`)
	case FaultCode:
		envelope(w, http.StatusOK, f.Code, refusals[f.Code], nil)
	case FaultSpring:
		spring(w, r, http.StatusServiceUnavailable)
	case FaultNotReady:
		envelope(w, http.StatusOK, "0000", "success", map[string]any{"taskId": id, "video_ids": []string{}})
	case FaultNotFound:
		spring(w, r, http.StatusNotFound)
	case FaultDeprecated:
		envelope(w, http.StatusBadRequest, "0400", "this endpoint is deprecated", nil)
	case FaultAsksBearer:
		w.WriteHeader(http.StatusUnauthorized)
	case FaultTruncated:
		_, _ = io.WriteString(w, `{"code":"0000","msg":"success","data":{"taskId":"`+id+`","video_ids":["PI-1"`)
	case FaultForeign:
		envelope(w, http.StatusOK, "0000", "success", map[string]any{"taskId": "foreign-" + id, "video_ids": []string{"PI-000000000000000666"}})
	case FaultNotUTF8:
		_, _ = io.WriteString(w, "{\"code\":\"0000\",\"data\":{\"taskId\":\""+id+"\",\"video_ids\":[\"PI-\xff\xfe\"]}}")
	default:
		f.answerAnyhow(w, r)
	}
}

// answerOperation is answer in the Datalake's way.
func (f Fault) answerOperation(w http.ResponseWriter, r *http.Request, id string) {
	switch f.Kind {
	case FaultRateLimited:
		refuse(w, http.StatusTooManyRequests, "rate_limited", "too many requests", 1)
	case FaultRateLimitedInt:
		refuseInBody(w, http.StatusTooManyRequests, "rate_limited", "too many requests", 1)
	case FaultCode:
		refuseAs(w, f.Code)
	case FaultSpring:
		refuse(w, http.StatusServiceUnavailable, "unavailable", "try again later", 1)
	case FaultNotReady:
		refuse(w, http.StatusConflict, "video_not_ready", "the video is not ready", 2)
	case FaultNotFound:
		refuse(w, http.StatusNotFound, "not_found", "no such operation", 0)
	case FaultDeprecated:
		refuse(w, http.StatusBadRequest, "invalid_argument", "this endpoint is deprecated", 0)
	case FaultAsksBearer:
		refuse(w, http.StatusUnauthorized, "unauthorized", "send the API key as Authorization: Bearer <key>", 0)
	case FaultTruncated:
		_, _ = io.WriteString(w, `{"operation":"`+id+`","done":tr`)
	case FaultForeign:
		answerJSON(w, http.StatusOK, map[string]any{"operation": "foreign-" + id, "done": true, "resource": "PI-000000000000000666"})
	case FaultNotUTF8:
		_, _ = io.WriteString(w, "{\"operation\":\""+id+"\",\"done\":true,\"resource\":\"PI-\xff\xfe\"}")
	default:
		f.answerAnyhow(w, r)
	}
}

// answerAnyhow answers the faults that both generations have in common.
func (f Fault) answerAnyhow(w http.ResponseWriter, r *http.Request) {
	const page = "<!DOCTYPE html><html><head><title>nginx</title></head><body><h1>Something else</h1></body></html>"
	switch f.Kind {
	case FaultHTTP429:
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
	case FaultHTML, FaultHTML200, FaultFirewall:
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(map[string]int{FaultHTML: http.StatusBadGateway, FaultHTML200: http.StatusOK, FaultFirewall: http.StatusForbidden}[f.Kind])
		_, _ = io.WriteString(w, page)
	case FaultRedirect:
		http.Redirect(w, r, "/elsewhere", http.StatusFound)
	case FaultHang:
		<-r.Context().Done()
	case FaultCut:
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, `{"code":"0000","msg":"succ`)
		panic(http.ErrAbortHandler)
	case FaultHuge:
		_, _ = io.WriteString(w, `{"code":"0000","msg":"`)
		for range 160 {
			_, _ = io.WriteString(w, strings.Repeat("x", 64<<10))
		}
		_, _ = io.WriteString(w, `"}`)
	}
}

func spring(w http.ResponseWriter, r *http.Request, status int) {
	answerJSON(w, status, map[string]any{
		"timestamp": time.Now().UTC().Format(time.RFC3339), "path": r.URL.Path, "status": status,
		"error": http.StatusText(status), "requestId": "1",
	})
}
