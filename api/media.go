package api

import (
	"mime"
	"net/http"
	"strings"

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
	refuse(ctx, problemFor(http.StatusUnsupportedMediaType, codeMediaType, fieldsDetail([]FieldError{wrong}), wrong))
}

// asJSON is a request whose body is JSON, whatever spelling its media type has.
type asJSON struct{ humaContext }

// Header returns a header of the request.
func (r asJSON) Header(name string) string {
	if strings.EqualFold(name, "Content-Type") {
		return "application/json"
	}
	return r.humaContext.Header(name)
}
