// The whole story from an upstream app's side: it submits a video to memories.ai, registers the task with
// memhook, and gets the webhook when the video ids are there.
//
//	MEMORIES_BASE_URL=http://127.0.0.1:9100 MEMORIES_API_KEY=sk-mavi-… \
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
	var upload struct {
		Data struct {
			TaskID string `json:"taskId"`
		}
	}
	post(os.Getenv("MEMORIES_BASE_URL")+"/serve/api/v1/scraper_url", os.Getenv("MEMORIES_API_KEY"), map[string]any{"video_urls": os.Args[1:]}, &upload)

	memhook, key := os.Getenv("MEMHOOK_URL"), "Bearer "+os.Getenv("MEMHOOK_API_KEY")
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=" // make your own: openssl rand -base64 32
	callback := "http://" + listener.Addr().String() + "/hooks"
	post(memhook+"/v1/endpoints", key, map[string]any{"url": callback, "secret": secret}, nil)
	post(memhook+"/v1/tasks", key, map[string]any{"task_id": upload.Data.TaskID, "callback_url": callback}, nil)
	fmt.Println("registered", upload.Data.TaskID)

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
