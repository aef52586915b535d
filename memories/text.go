package memories

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of what is accepted from an answer, in bytes for text.
const (
	maxVideos     = 20_000
	maxIDLength   = 256
	maxMessageLen = 500
	maxWord       = 64
	maxURL        = 2048
	maxStages     = 16
	maxDuration   = 366 * 24 * 3600 // seconds
)

func decode(body []byte, v any) error {
	if !utf8.Valid(body) {
		return errors.New("the answer is not UTF-8")
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("the answer is not the JSON that was expected: %w", err)
	}
	return nil
}

// text reads a JSON string, number or null as a string, and refuses anything else.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	switch b[0] {
	case '{', '[', 't', 'f':
		return fmt.Errorf("expected a string or a number, got %.20s", b)
	default:
		return (*loose)(t).UnmarshalJSON(b)
	}
}

// loose reads a JSON string, number, boolean or null as a string, and anything else as none: what nobody
// depends on does not spoil an answer.
type loose string

func (l *loose) UnmarshalJSON(b []byte) error {
	switch b[0] {
	case '"':
		var s string
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		*l = loose(s)
	case '{', '[', 'n':
		*l = ""
	default:
		*l = loose(b)
	}
	return nil
}

// told returns a detail without blanks around it; the service writes "null" where it has none.
func (l loose) told() string {
	if s := strings.TrimSpace(string(l)); s != "null" {
		return s
	}
	return ""
}

// cut returns a detail of at most limit bytes, fit to be shown.
func (l loose) cut(limit int) string { return cut(l.told(), limit) }

// whole returns a detail that is of no use in part, or none where it is longer than limit or not printable.
func (l loose) whole(limit int) string {
	if s := l.told(); len(s) <= limit && printable(s) {
		return s
	}
	return ""
}

// number returns a detail's number between 0 and limit; nil where it is something else.
func (l loose) number(limit float64) *float64 {
	f, err := strconv.ParseFloat(l.told(), 64)
	if err != nil || math.IsNaN(f) || f < 0 || f > limit {
		return nil
	}
	return &f
}

// validID reports whether an id is one that can be stored, shown and asked for.
func validID(id string) bool { return id != "" && len(id) <= maxIDLength && printable(id) }

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// clip makes foreign text fit to be stored and shown.
func clip(s string) string { return cut(s, maxMessageLen) }

func cut(s string, limit int) string {
	if s = strings.ToValidUTF8(s, ""); len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "")
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}
