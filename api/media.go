package api

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// checkMedia is a middleware that refuses bodies that do not come as JSON in UTF-8.
func checkMedia(ctx huma.Context, next func(huma.Context)) {
	if ctx.Operation().RequestBody == nil {
		next(ctx)
		return
	}
	if coding := ctx.Header("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		refuseMedia(ctx, FieldError{"Content-Encoding", "must be absent: send the body as it is, without compression"})
		return
	}
	given := ctx.Header("Content-Type")
	kind, params, err := mime.ParseMediaType(given)
	if given == "" {
		kind, err = "application/json", nil
	}
	switch charset := params["charset"]; {
	case err != nil || kind != "json" && !strings.HasSuffix(kind, "/json") && !strings.HasSuffix(kind, "+json"):
		refuseMedia(ctx, FieldError{"Content-Type", "must be application/json, and the body JSON; " + printableName(given) + " is not supported"})
	case charset != "" && !strings.EqualFold(charset, "utf-8") && !strings.EqualFold(charset, "us-ascii"):
		text := "must be application/json in UTF-8; the charset " + printableName(charset) + " is not supported"
		refuseMedia(ctx, FieldError{"Content-Type", text})
	default:
		next(asJSON{ctx})
	}
}

func refuseMedia(ctx huma.Context, wrong FieldError) {
	refuse(ctx, fieldProblem(http.StatusUnsupportedMediaType, codeMediaType, wrong))
}

// readBody is a middleware that reads the body, also where the operation takes none. It refuses one that is larger than maxBody, takes
// longer than bodyTimeout, or ends early. The time for the handler is its own: a deadline that passes on the connection would cancel
// the request's context.
func readBody(ctx huma.Context, next func(huma.Context)) {
	_ = ctx.SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := io.ReadAll(io.LimitReader(ctx.BodyReader(), maxBody+1))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		refuseBody(ctx, http.StatusRequestTimeout, codeTimeout, "did not arrive within "+bodyTimeout.String()+"; send the request again")
	case err != nil:
		refuseBody(ctx, http.StatusBadRequest, codeBadRequest, "could not be read to its end; send the request again")
	case len(body) > maxBody:
		refuseBody(ctx, http.StatusRequestEntityTooLarge, codeTooLarge, "is larger than 1 MiB; send less in one request")
	default:
		_ = ctx.SetReadDeadline(time.Time{})
		next(withBody{ctx, body})
	}
}

func refuseBody(ctx huma.Context, status int, code, message string) {
	wrong := FieldError{fieldBody, message}
	refuse(ctx, fieldProblem(status, code, wrong))
}

// withBody is a request whose body was read.
type withBody struct {
	humaContext

	body []byte
}

// BodyReader returns the body from its beginning.
func (r withBody) BodyReader() io.Reader { return bytes.NewReader(r.body) }

// asJSON is a request whose body is JSON, whatever spelling its media type has.
type asJSON struct{ humaContext }

// Header returns a header of the request.
func (r asJSON) Header(name string) string {
	if strings.EqualFold(name, "Content-Type") {
		return "application/json"
	}
	return r.humaContext.Header(name)
}
