// Package nearest finds the name that a mistyped one probably means, for messages about unknown fields, paths and settings.
package nearest

import "strings"

// Of returns which of the known names a wrong one probably means; empty if none is near. Case and separators do not matter.
func Of(name string, known []string) string {
	plain := plainly(name)
	best, least := "", 3
	for _, k := range known {
		d := Distance(plain, plainly(k))
		if strings.HasSuffix(k, "."+name) { // ready for task.ready
			d = 0
		}
		if d < least && (d == 0 || 2*d < min(len(plain), len(k))) {
			best, least = k, d
		}
	}
	return best
}

func plainly(name string) string {
	return separators.Replace(strings.ToLower(name[:min(len(name), 100)]))
}

var separators = strings.NewReplacer("_", "", "-", "", " ", "", "[", "", "]", "")

// Distance is the least number of bytes to insert, delete or replace that turns a into b. It takes time in proportion to
// the product of their lengths.
func Distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
