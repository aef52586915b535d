package dashboard

import (
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/memhook/memhook/api/verdict"
	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
)

// done says what the last button did. The words are ours: a link from elsewhere can choose among them only.
func done(r *http.Request) string {
	switch q := r.URL.Query(); q.Get("done") {
	case "resend-delivery":
		return "The delivery is sent again under the same webhook-id"
	case "rotate-endpoint":
		return "The secret was rotated. Reveal it, and give it to your receiver"
	case "recover-endpoint":
		n, _ := strconv.Atoi(q.Get("n"))
		return verdict.Count(max(0, n), "delivery") + " sent again as the endpoint takes them"
	default:
		return ""
	}
}

// portalDeliveries is the first page: how the endpoint does, and its deliveries.
type portalDeliveries struct {
	listData[deliveryLine]
	store.Health

	Condition, Advice string
	Strip             template.HTML
	Filtered          bool
}

func (p *portal) deliveries(r *http.Request, v *visit) (*view, error) {
	ep, err := p.store.Endpoint(r.Context(), store.OfApp(v.AppID), v.EndpointID)
	if err != nil {
		return nil, err
	}
	var data portalDeliveries
	data.Condition, data.Advice = condition(&ep)
	data.Filter = filters(r, "status", "q", "since", "until")
	for _, value := range data.Filter {
		data.Filtered = data.Filtered || value != ""
	}
	f := store.DeliveryFilter{Scope: store.OfApp(v.AppID), EndpointID: v.EndpointID, Status: data.Filter["status"], About: data.Filter["q"]}
	if data.Rows, data.pager, err = p.deliveryPage(r, f); err != nil {
		return nil, err
	}
	if data.Health, err = p.store.EndpointHealth(r.Context(), v.EndpointID, stripAttempts); err != nil {
		return nil, err
	}
	data.Strip = strip(data.Recent)
	return &view{template: "deliveries", Title: "Deliveries", Live: 3, Data: data}, nil
}

// condition words how an endpoint does for the one who runs it.
func condition(ep *store.Endpoint) (state, advice string) {
	switch {
	case !ep.Enabled:
		return "disabled", "Nothing is sent: " + *ep.DisabledReason + ". New webhooks wait. Ask the sender to enable the endpoint again."
	case ep.Breaker != store.BreakerClosed:
		return "failing", "New webhooks wait. The endpoint is probed at growing intervals of up to five minutes; Recover tries it at once."
	case ep.Failures > 0:
		return "failing", "The last attempts failed and will be retried."
	default:
		return "working", ""
	}
}

// own reads the delivery in the path. One of another endpoint does not exist here.
func (p *portal) own(r *http.Request, v *visit) (store.Delivery, error) {
	del, err := p.store.Delivery(r.Context(), store.OfApp(v.AppID), pathID(r))
	if err == nil && del.EndpointID != v.EndpointID {
		return store.Delivery{}, store.ErrNotFound
	}
	return del, err
}

func (p *portal) delivery(r *http.Request, v *visit) (*view, error) {
	del, err := p.own(r, v)
	if err != nil {
		return nil, err
	}
	data, err := p.details(r, del)
	return &view{template: "delivery", Title: "Delivery of " + del.EventType, Live: 2, Data: data}, err
}

func (p *portal) resend(r *http.Request, v *visit) (to string, err error) {
	del, err := p.own(r, v)
	if err == nil {
		err = p.store.Resend(r.Context(), store.OfApp(v.AppID), del.ID)
	}
	return "/deliveries/" + del.ID.String(), err
}

func (p *portal) recover(r *http.Request, v *visit) (to string, err error) {
	since, err := formHours(r)
	if err != nil {
		return "", err
	}
	n, err := p.store.Recover(r.Context(), store.OfApp(v.AppID), v.EndpointID, &since)
	return withQuery("/", "n", strconv.Itoa(n)), err
}

// portalSecret is the page of the secret, which it shows only where it was asked to.
type portalSecret struct {
	Secret    string
	PublicKey string     // where v1a signatures are sent
	OldUntil  *time.Time // until then the replaced secret signs too
}

func (p *portal) secret(r *http.Request, v *visit) (*view, error) {
	ep, err := p.store.Endpoint(r.Context(), store.OfApp(v.AppID), v.EndpointID)
	if err != nil {
		return nil, err
	}
	h, err := p.store.EndpointHealth(r.Context(), v.EndpointID, 0)
	if err != nil {
		return nil, err
	}
	data := portalSecret{OldUntil: h.OldSecretUntil}
	if data.PublicKey, err = p.publicKey(r, &ep); err != nil {
		return nil, err
	}
	return &view{template: "secret", Title: "Signing secret", Data: data}, nil
}

// reveal answers to a form with the page itself, so that the secret is at no address. It is shown only once that is in the audit log.
func (p *portal) reveal(r *http.Request, v *visit) (*view, error) {
	secrets, err := p.store.Secrets(r.Context(), store.OfApp(v.AppID), v.EndpointID)
	if err != nil {
		return nil, err
	}
	_, e := p.auditing(r, entry(v, "reveal-secret"))
	if err := p.store.Audit(r.Context(), e); err != nil {
		return nil, err
	}
	page, err := p.secret(r, v)
	if err != nil {
		return nil, err
	}
	data, _ := page.Data.(portalSecret)
	data.Secret = webhook.FormatSecret(secrets[0])
	page.Data = data
	return page, nil
}

func (p *portal) rotate(r *http.Request, v *visit) (to string, err error) {
	overlap := r.PostFormValue("overlap")
	if !slices.Contains([]string{"24h", "168h", "0s"}, overlap) {
		return "", badInput("The old secret can sign for 24h, 168h or 0s.")
	}
	lasts, err := time.ParseDuration(overlap)
	if err == nil {
		_, err = p.store.RotateSecret(r.Context(), store.OfApp(v.AppID), v.EndpointID, lasts)
	}
	return "/secret", err
}
