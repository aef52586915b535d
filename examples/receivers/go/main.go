// A receiver of memhook's webhooks: it verifies with the official Standard Webhooks library, deduplicates by
// webhook-id, answers at once and works afterwards.
//
//	MEMHOOK_SECRET=whsec_… go run . 127.0.0.1:9000
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"sync"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

func main() {
	verifier, err := standardwebhooks.NewWebhook(os.Getenv("MEMHOOK_SECRET"))
	if err != nil {
		log.Fatal(err)
	}
	var seen sync.Map // keep it in your database, together with what you do
	work := make(chan []byte, 1000)
	go func() {
		for body := range work {
			fmt.Printf("working on %s\n", body)
		}
	}()
	http.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 8<<20))
		if err != nil || verifier.Verify(body, r.Header) != nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if _, again := seen.LoadOrStore(r.Header.Get("webhook-id"), true); !again {
			work <- body
		}
		w.WriteHeader(http.StatusNoContent)
	})
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}
