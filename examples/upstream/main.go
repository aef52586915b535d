// The whole story from an upstream app's side: it gives a video to memhook, which submits it to memories.ai, and gets the
// webhook when the video ids are there.
//
//	MEMHOOK_URL=http://127.0.0.1:8080 MEMHOOK_API_KEY=… go run . https://www.youtube.com/watch?v=…
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"

	"github.com/memhook/memhook/webhook"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0") // where the webhook comes to
	if err != nil {
		log.Fatal(err)
	}
	memhook, key := os.Getenv("MEMHOOK_URL"), "Bearer "+os.Getenv("MEMHOOK_API_KEY")
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=" // make your own: openssl rand -base64 32
	callback := "http://" + listener.Addr().String() + "/hooks"
	post(memhook+"/v1/endpoints", key, map[string]any{"url": callback, "secret": secret}, nil)
	var upload struct{ ID string }
	post(memhook+"/v1/uploads", key, map[string]any{"urls": os.Args[1:], "callback_url": callback}, &upload)
	fmt.Println("queued", upload.ID)

	log.Fatal(http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || webhook.Verify(body, r.Header, secret) != nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.WriteHeader(http.StatusNoContent)
		fmt.Printf("verified: %s\n", body)
	})))
}

func post(url, authorization string, body, out any) {
	raw, _ := json.Marshal(body)
	req, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(raw))
	if err != nil {
		log.Fatal(err)
	}
	req.Header.Set("Authorization", authorization)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	if resp.StatusCode >= 300 {
		log.Fatalf("%s: %s: %s", url, resp.Status, answer)
	}
	if out != nil && json.Unmarshal(answer, out) != nil {
		log.Fatalf("%s: %s", url, answer)
	}
}
