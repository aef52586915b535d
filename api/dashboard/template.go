package dashboard

import (
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/memhook/memhook/api/verdict"
	"github.com/memhook/memhook/webhook"
)

// parsePages reads each page of a folder with the folder's layout and the parts that all pages share.
func parsePages(folder string) (map[string]*template.Template, error) {
	names, err := files.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	pages := make(map[string]*template.Template)
	for _, entry := range names {
		name := strings.TrimSuffix(entry.Name(), ".html")
		if name == "layout" {
			continue
		}
		t, err := template.New(name).Funcs(functions).ParseFS(files, "pages/parts.html", folder+"/layout.html", folder+"/"+entry.Name())
		if err != nil {
			return nil, fmt.Errorf("page %s: %w", name, err)
		}
		pages[name] = t
	}
	return pages, nil
}

// navigation is one link in the header of the pages.
type navigation struct {
	Href, Text string
	Here       bool
}

var functions = template.FuncMap{
	"link": func(href, text, path string) navigation {
		here := path == href || (href != "/admin/" && strings.HasPrefix(path, href+"/"))
		return navigation{href, text, here}
	},
	"links":   func(links ...navigation) []navigation { return links },
	"strings": func(list ...string) []string { return list },
	"ago":     ago, "due": due, "clock": clock, "stamp": stamp,
	"number": number, "decimal": decimal, "count": count[int], "count64": count[int64],
	"event": func(id fmt.Stringer) string { return webhook.EventID(id.String()) },
	"deref": func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	},
	"when": func(t *time.Time) time.Time {
		if t == nil {
			return time.Time{}
		}
		return *t
	},
	"countp":  func(n *int, noun string) string { return count(*n, noun) },
	"amount":  func(f *float64) string { return strconv.FormatFloat(*f, 'f', -1, 64) },
	"seconds": func(s float64) string { return verdict.Span(time.Duration(s * float64(time.Second))) },
	"ms":      millis,
	"class":   stateClass,
	"success": success, "quantiles": quantilesOf,
	"cut":    cut,
	"moment": func(t time.Time, format string) string { return t.UTC().Format(format) },
}

// cut shortens a text to what a button holds.
func cut(text string) string {
	const most = 60
	if r := []rune(text); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return text
}

// millis writes a duration that was measured in whole milliseconds.
func millis(n int) string {
	if n == 0 {
		return "< 1 ms"
	}
	return verdict.Span(time.Duration(n) * time.Millisecond)
}

// stateClass returns the CSS class of a state.
func stateClass(state string) string {
	switch state {
	case "ready", "delivered", "active", "closed", "enabled", "submitted", "working", "finished":
		return "good"
	case "failed", "refused", "open", "disabled", "failing":
		return "bad"
	case "expired", "rate_limited", "unavailable", "half-open", "unknown":
		return "warn"
	default:
		return "plain"
	}
}

func ago(t time.Time) string {
	if d := time.Since(t); d > time.Second {
		return verdict.Span(d.Truncate(time.Second)) + " ago"
	}
	return "now"
}

// due writes when something that is planned happens. A plan whose time has passed is due now.
func due(t *time.Time) string {
	if t == nil {
		return "–"
	}
	if d := time.Until(*t).Round(time.Second); d > 0 {
		return "in " + verdict.Span(d)
	}
	return "due now"
}

// count writes a number with its noun in the singular or the plural.
func count[N int | int64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if stem, ok := strings.CutSuffix(noun, "y"); ok {
		noun = stem + "ie"
	}
	return number(n) + " " + noun + "s"
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05.000") }

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

func decimal(f float64) string { return strconv.FormatFloat(f, 'f', 2, 64) }

// number writes a number with its thousands separated.
func number(n any) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}

// withQuery returns a path with one query parameter added or replaced.
func withQuery(to, name, value string) string {
	u, err := url.Parse(to)
	if err != nil {
		return to
	}
	q := u.Query()
	q.Set(name, value)
	u.RawQuery = q.Encode()
	return u.String()
}

// back returns the page on which a form was sent.
func back(r *http.Request) string {
	u, err := url.Parse(r.Referer())
	if err != nil || u.Path == "" {
		return "/admin/"
	}
	return localPath(u.RequestURI())
}
