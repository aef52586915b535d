package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	// maxDepth is the maximum depth of a request's JSON. A batch needs five levels.
	maxDepth = 20
	// unreadable is what the messages about a body begin with that is not JSON as the API takes it: status 400.
	unreadable = "cannot be read as JSON: "
	// atField is what the message about a field begins with whose value passes the schema and does not fit.
	atField = "at field "
)

// unmarshal reads a request's JSON. Its errors say what is wrong with the body in terms of JSON.
func unmarshal(data []byte, v any) error {
	if err := checkJSON(data); err != nil {
		return fmt.Errorf("%s%w", unreadable, err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return jsonFault(data, err)
	}
	return nil
}

// checkJSON refuses what [json.Unmarshal] would take or change without a word, and what it would take too long for.
func checkJSON(data []byte) error {
	switch {
	case bytes.HasPrefix(data, []byte("\uFEFF")):
		return errors.New("it begins with a byte order mark (BOM); send UTF-8 without one")
	case bytes.HasPrefix(data, []byte{0x1f, 0x8b}):
		return errors.New("it is compressed (gzip); send it as it is")
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}), bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		return errors.New("it is UTF-16; send UTF-8")
	case !utf8.Valid(data):
		return errors.New("it has bytes that are not UTF-8; encode it as UTF-8, not as Latin-1 or the like")
	}
	var objects []map[string]bool // the names of each object around, nil for an array
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '{', '[':
			if len(objects) == maxDepth {
				return fmt.Errorf("it is nested deeper than %d levels", maxDepth)
			}
			objects = append(objects, nil)
			if data[i] == '{' {
				objects[len(objects)-1] = map[string]bool{}
			}
		case '}', ']':
			objects = objects[:max(0, len(objects)-1)]
		case '"':
			end, err := textEnd(data, i)
			if err != nil {
				return err
			}
			text := data[i:min(end+1, len(data))]
			i = end
			isName := bytes.HasPrefix(bytes.TrimLeft(data[min(end+1, len(data)):], " \t\r\n"), []byte(":"))
			if len(objects) == 0 || objects[len(objects)-1] == nil || !isName {
				continue
			}
			name := nameOf(text)
			if objects[len(objects)-1][name] {
				return fmt.Errorf("%s is given twice in one object; give it once", name)
			}
			objects[len(objects)-1][name] = true
		}
	}
	return nil
}

// nameOf returns what encoding/json reads a field's name as, which escapes can write in many ways.
func nameOf(text []byte) (name string) {
	if bytes.IndexByte(text, '\\') < 0 {
		return string(text[1 : len(text)-1])
	}
	_ = json.Unmarshal(text, &name) // a text that is none is refused afterwards
	return name
}

// textEnd returns where the text ends that begins with the quote at start. Half of a surrogate pair is an error:
// [json.Unmarshal] would put another character in its place.
func textEnd(data []byte, start int) (int, error) {
	for i := start + 1; i < len(data); i++ {
		switch data[i] {
		case '"':
			return i, nil
		case '\\':
			if half := escaped(data[i:]); utf16.IsSurrogate(half) {
				if utf16.DecodeRune(half, escaped(data[min(i+6, len(data)):])) == utf8.RuneError {
					return 0, fmt.Errorf("%s is half of a surrogate pair; send the character itself as UTF-8", data[i:i+6])
				}
				i += 6
			}
			i++
		}
	}
	return len(data), nil
}

// escaped returns the code unit of the escape \uXXXX that data begins with, or 0.
func escaped(data []byte) (unit rune) {
	if len(data) < 6 || data[0] != '\\' || data[1] != 'u' {
		return 0
	}
	_, _ = fmt.Sscanf(string(data[2:6]), "%04x", &unit)
	return unit
}

// jsonFault words an error of encoding/json, which speaks of Go types and of its parser, for clients.
func jsonFault(data []byte, err error) error {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("%s%s", unreadable, syntaxFault(data, syntax))
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
		if wrong.Value == jsonNull { // of a NotNull: everywhere else null is no value
			return fmt.Errorf("%s%s must not be null; leave it out instead", atField, wrong.Field)
		}
		if number, ok := strings.CutPrefix(wrong.Value, "number "); ok {
			return fmt.Errorf("%s%s must be a whole number without a decimal point or exponent, not %s", atField, wrong.Field, number)
		}
		return fmt.Errorf("%s%s must not be of the type %s", atField, wrong.Field, wrong.Value)
	}
	return errors.New("has a value of the wrong type")
}

// syntaxFault says where a text stops being JSON, and what is usually meant by what stands there.
func syntaxFault(data []byte, err *json.SyntaxError) string {
	at := max(0, int(err.Offset)-1)
	if strings.HasPrefix(err.Error(), "unexpected end") || at >= len(data) {
		return "it ends too early: a quote, a bracket or a brace is not closed"
	}
	before := bytes.TrimRight(data[:at], " \t\r\n")
	line, column := 1+bytes.Count(data[:at], []byte("\n")), at-bytes.LastIndexByte(data[:at], '\n')
	return fmt.Sprintf("line %d, column %d: %s", line, column, characterFault(data[at], before, err.Error()))
}

func characterFault(c byte, before []byte, parser string) string {
	inside := func(state string) bool { return strings.Contains(parser, state) }
	switch {
	case inside("in string literal"):
		return `a line end or tab inside a text must be written \n or \t`
	case inside("escape code"):
		return `a backslash inside a text must be written \\`
	case inside("after top-level value"):
		return "something follows the end of the object; send one object alone"
	case c == '\'' || c == '`':
		return "names and texts must stand in double quotes"
	case (c == '}' || c == ']') && bytes.HasSuffix(before, []byte(",")):
		return "the comma before " + string(c) + " is one too many"
	case c == '/' || c == '#':
		return "JSON has no comments; leave it out"
	case inside("object key string"):
		return "the name of a field must stand here, in double quotes"
	case inside("after object key:value pair"), inside("after array element"):
		return "a comma is missing here, or a closing bracket"
	case inside("after object key"):
		return "a colon must follow the name of a field"
	default:
		return "a value must be a text in double quotes, a number, true, false, null, an object or an array"
	}
}
