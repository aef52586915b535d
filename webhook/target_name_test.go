package webhook

import (
	"math/rand/v2"
	"testing"
)

// What plainName takes past the mapping is what the mapping leaves as it is.
func TestPlainNamesAreMappedToThemselves(t *testing.T) {
	t.Parallel()
	const alphabet = "abcxn019.-_"
	random := rand.New(rand.NewPCG(1, 2)) // a sequence that repeats
	plain := 0
	for range 50_000 {
		name := make([]byte, 1+random.IntN(12))
		for i := range name {
			name[i] = alphabet[random.IntN(len(alphabet))]
		}
		if !plainName(string(name)) {
			continue
		}
		plain++
		if mapped, err := names.ToASCII(string(name)); err != nil || mapped != string(name) {
			t.Fatalf("%s is mapped to %q: %v", name, mapped, err)
		}
	}
	if plain < 10_000 {
		t.Errorf("only %d names were plain", plain)
	}
	for _, name := range []string{"xn--bcher-kva.example", "a.xn--b", "Bücher.example", "A.example", "a b"} {
		if plainName(name) {
			t.Errorf("%s is not plain", name)
		}
	}
}
