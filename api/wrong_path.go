package api

import (
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/go-chi/chi/v5"

	"github.com/memhook/memhook/internal/nearest"
)

// wrongPath answers requests that no operation takes: 405 and the methods where the path has some, otherwise 404 and the path
// that was probably meant.
func wrongPath(routes *chi.Mux) http.HandlerFunc {
	known := sync.OnceValue(func() []string { return patterns(routes) }) // operations are added later
	return func(w http.ResponseWriter, r *http.Request) {
		if allowed := methodsOf(routes, r); allowed != nil {
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			writeProblem(w, r, problemFor(http.StatusMethodNotAllowed, codeMethod,
				"this path does not accept the method "+printableName(r.Method)+", only "+strings.Join(allowed, ", ")))
			return
		}
		detail := "the API has no such path"
		if near := nearestPath(r.URL.Path, known()); near != "" {
			detail += "; did you mean " + printableName(near) + "?"
		} else {
			detail += "; /docs/ lists all operations"
		}
		writeProblem(w, r, problemFor(http.StatusNotFound, codeNotFound, detail))
	}
}

func methodsOf(routes *chi.Mux, r *http.Request) (allowed []string) {
	target := r.URL.RawPath // as chi does
	if target == "" {
		target = r.URL.Path
	}
	for _, method := range []string{get, http.MethodHead, post, http.MethodPut, patch, del} {
		as := method
		if as == http.MethodHead {
			as = get
		}
		if found := routes.Find(chi.NewRouteContext(), as, target); found != "" && !strings.HasSuffix(found, "*") && found != "/admin/v1" {
			allowed = append(allowed, method)
		}
	}
	return allowed
}

// patterns returns the paths of all operations, without the dashboard's pages.
func patterns(routes *chi.Mux) (out []string) {
	_ = chi.Walk(routes, func(_, pattern string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		page := strings.HasPrefix(pattern, "/admin/") && !strings.HasPrefix(pattern, "/admin/v1/")
		if !page && !strings.HasSuffix(pattern, "*") {
			out = append(out, pattern)
		}
		return nil
	})
	slices.Sort(out)
	return slices.Compact(out)
}

// nearestPath returns the path that a wrong one probably means, with its own ids; empty if none is near.
func nearestPath(given string, known []string) (best string) {
	clean := strings.TrimPrefix(path.Clean("/"+given), "/api")
	least := 4
	for _, prefix := range []string{"", "/v1", "/admin/v1"} {
		segments := strings.Split(prefix+clean, "/")
		for _, pattern := range known {
			if d, filled := pathDistance(segments, strings.Split(pattern, "/")); d < least {
				best, least = filled, d
			}
		}
	}
	return best
}

// pathDistance is how many letters of a path differ from a pattern, and the path that the pattern makes of it; many where they
// have nothing in common.
func pathDistance(given, pattern []string) (letters int, filled string) {
	const many = 100
	if len(given) != len(pattern) {
		return many, ""
	}
	filling := slices.Clone(pattern)
	for i, want := range pattern {
		if strings.HasPrefix(want, "{") {
			filling[i] = given[i]
			continue
		}
		lower := strings.ToLower(given[i][:min(len(given[i]), 50)])
		d := nearest.Distance(lower, want)
		if d > 0 && 3*d > max(len(lower), len(want)) && want != "v1" {
			return many, ""
		}
		letters += d
	}
	return letters, strings.Join(filling, "/")
}
