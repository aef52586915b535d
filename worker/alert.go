package worker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
)

const (
	// alertInterval is how often alerts are sent. One that could not be sent is tried again after alertRetry.
	alertInterval, alertRetry = 2 * time.Second, 15 * time.Second
	alertTimeout              = 10 * time.Second
	// lateQueue is how long a delivery may wait for a worker before that is an alert.
	lateQueue = 30 * time.Second
)

// Alerts say where alerts are sent.
type Alerts struct {
	URL       *url.URL // nil for nowhere
	Secret    []byte   // signs them; nil for no signature
	PublicURL string   // what links begin with; empty: there are none
}

// plain reports whether the receiver is a chat that takes {"text": …} alone, as Slack's hooks do.
func (a Alerts) plain() bool {
	return a.URL.Hostname() == "hooks.slack.com" || a.URL.Fragment == "text"
}

// alertBody is an alert on the wire.
type alertBody struct {
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"`
	Data      alertData `json:"data"`
}

type alertData struct {
	Subject string `json:"subject"`
	State   string `json:"state"`
	Summary string `json:"summary"`
	Link    string `json:"link,omitempty"`
}

// body returns an alert as its receiver takes it.
func (a Alerts) body(alert store.Alert) ([]byte, error) {
	link := ""
	if a.PublicURL != "" && alert.Link != "" {
		link = a.PublicURL + alert.Link
	}
	if a.plain() {
		return json.Marshal(map[string]string{"text": strings.TrimSpace("memhook: " + alert.Summary + " " + link)})
	}
	return json.Marshal(alertBody{"memhook.alert", alert.At.UTC(), alertData{alert.Subject, alert.State, alert.Summary, link}})
}

// sendAlerts sends the alerts that wait, and notes whether deliveries wait for a worker, until ctx is done.
func (w *Worker) sendAlerts(ctx context.Context) {
	client := &http.Client{
		Timeout: alertTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer client.CloseIdleConnections()
	var resume time.Time
	every(ctx, alertInterval, func(ctx context.Context) {
		if time.Now().Before(resume) {
			return
		}
		err := w.noteQueue(ctx)
		for found := true; found && err == nil; {
			found, err = w.cfg.Store.SendAlert(ctx, func(a store.Alert) error { return w.cfg.Alerts.post(ctx, client, a) })
		}
		if err != nil && ctx.Err() == nil {
			resume = time.Now().Add(alertRetry)
			w.log.Warn("could not send an alert; it is tried again", "retry_in", alertRetry.String(), "error", err)
		}
	})
}

// noteQueue enters an alert when deliveries begin to wait for a worker, and when they no longer do.
func (w *Worker) noteQueue(ctx context.Context) error {
	depths, err := w.cfg.Store.QueueDepths(ctx)
	if err != nil {
		return err
	}
	paused, err := w.cfg.Store.PausedQueues(ctx)
	if err != nil {
		return err
	}
	var oldest time.Duration
	for _, q := range depths {
		if q.State == "available" && paused[q.Queue].IsZero() && slices.Contains(store.Pausable["deliveries"], q.Queue) {
			oldest = max(oldest, time.Duration(q.OldestSecs*float64(time.Second)))
		}
	}
	a := store.Alert{
		Subject: "queue:deliveries", State: "in time", Summary: "Deliveries no longer wait for a worker.", Link: "/admin/", At: time.Now(),
		Good: true,
	}
	if oldest > lateQueue {
		a.Good, a.State, a.Summary = false, "late", fmt.Sprintf("Deliveries wait for a worker, the oldest for %s.", oldest.Round(time.Second))
	}
	return w.cfg.Store.RaiseAlert(ctx, a)
}

// post sends an alert as a webhook. The error does not repeat the URL, which can be a secret.
func (a Alerts) post(ctx context.Context, client *http.Client, alert store.Alert) error {
	body, err := a.body(alert)
	if err != nil {
		return err
	}
	target := *a.URL
	target.Fragment = ""
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), bytes.NewReader(body))
	if err != nil {
		return errors.New("the URL of MEMHOOK_ALERT_URL cannot be requested")
	}
	now := time.Now()
	hash := sha256.Sum256([]byte(alert.Subject + " " + alert.State + " " + alert.At.UTC().Format(time.RFC3339Nano)))
	id := "alert_" + hex.EncodeToString(hash[:16])
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(webhook.HeaderID, id)
	req.Header.Set(webhook.HeaderTimestamp, strconv.FormatInt(now.Unix(), 10))
	if a.Secret != nil {
		req.Header.Set(webhook.HeaderSignature, webhook.Sign(id, now, body, [][]byte{a.Secret}))
	}
	resp, err := client.Do(req)
	if failure, ok := errors.AsType[*url.Error](err); ok {
		return failure.Err
	}
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("the receiver of alerts answered %d", resp.StatusCode)
	}
	return nil
}
