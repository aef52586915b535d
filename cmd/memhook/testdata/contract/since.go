package main

import (
	"net/http"
	"strings"
)

// What the first version of the API did not have, or had otherwise: see testdata/first/since.go.

func (d *driver) uploads() {
	ctx, app := d.ctx, d.app
	urls := []string{"https://videos.example/contract"}
	upload := d.want(202, "upload")(app.CreateUpload(ctx, nil, NewUpload{Urls: &urls, CallbackUrl: d.callback}))
	d.want(200, "read an upload")(app.GetUpload(ctx, text(upload, "id")))
	d.want(200, "list uploads")(app.ListUploads(ctx, &ListUploadsParams{Limit: ptr(int64(10))}))
	d.want(422, "upload nothing")(app.CreateUpload(ctx, nil, NewUpload{CallbackUrl: d.callback}))
}

func (d *driver) findAndResend() {
	ctx, app := d.ctx, d.app
	d.want(200, "search")(app.Search(ctx, &SearchParams{Q: "contract-task"}))
	counted := d.want(202, "count what would be sent again")(app.ResendDeliveries(ctx, nil, NewResend{DryRun: ptr(true)}))
	if counted["id"] != nil {
		d.wrongf("a dry run has an id: %v", counted)
	}
	resend := d.want(202, "resend what has failed")(app.ResendDeliveries(ctx, nil, NewResend{}))
	d.want(200, "its progress")(app.GetResend(ctx, text(resend, "id")))
}

func (d *driver) portal(ep string) {
	lasts := CreateEndpointPortalJSONRequestBody{ExpiresIn: ptr("5m")}
	d.want(200, "its portal")(d.app.CreateEndpointPortal(d.ctx, ep, nil, lasts))
}

func (d *driver) publicKey(ep string) {
	ctx, app := d.ctx, d.app
	d.want(409, "the public key of one without v1a")(app.GetEndpointPublicKey(ctx, ep))
	d.want(200, "ask for v1a")(app.UpdateEndpointWithBody(ctx, ep, "application/json", strings.NewReader(`{"signatures":["v1","v1a"]}`)))
	d.want(200, "the public key")(app.GetEndpointPublicKey(ctx, ep))
}

func (d *driver) cancel(task string) (*http.Response, error) {
	return d.app.CancelTask(d.ctx, task, nil)
}

func (d *driver) taskEvents(task string) (*http.Response, error) {
	return d.app.ListTaskEvents(d.ctx, task, &ListTaskEventsParams{Limit: ptr(int64(5))})
}

func (d *driver) findAndResendAsOperator() {
	ctx, admin := d.ctx, d.admin
	d.want(200, "search")(admin.AdminSearch(ctx, &AdminSearchParams{Q: "contract-task"}))
	resend := d.want(202, "resend what has failed")(admin.AdminResendDeliveries(ctx, nil, NewResend{}))
	d.want(200, "its progress")(admin.AdminGetResend(ctx, text(resend, "id")))
	d.want(200, "the audit log")(admin.AdminListAudit(ctx, nil))
	uploads := d.want(200, "list uploads")(admin.AdminListUploads(ctx, &AdminListUploadsParams{Limit: ptr(int64(10))}))
	d.want(200, "read an upload")(admin.AdminGetUpload(ctx, text(first(uploads), "id")))
}
