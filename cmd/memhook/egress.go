package main

import (
	"context"

	"github.com/memhook/memhook/cmd/internal/app"
)

// egress tries the way that webhooks take, the guard and the proxy included.
func (d *doctor) egress(ctx context.Context, url string) {
	guard := app.NewGuard(d.cfg, nil)
	if _, err := guard.Target(url); err != nil {
		d.failf("egress", "use a public https URL, or permit the network with MEMHOOK_ALLOWED_CALLBACK_NETWORKS "+
			"(and http with MEMHOOK_ALLOW_HTTP_CALLBACKS)", "%s %v", url, err)
		return
	}
	sender := app.NewSender(d.cfg, guard, doctorTimeout)
	defer sender.Close()
	through := "no proxy is used"
	if d.cfg.CallbackProxy != nil {
		through = "the proxy is " + d.cfg.CallbackProxy.Redacted()
	}
	if resp := sender.Probe(ctx, url); resp.Err != nil {
		d.failf("egress", "check DNS, the firewall and NetworkPolicy from this machine; "+through, "%v (%v)", resp.Err, resp.Details())
	} else {
		d.okf("egress", "%s answers %d; %s", url, resp.Status, through)
	}
}
