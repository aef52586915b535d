package main

import "net/http"

// The first version of the API has none of these but the public key, which was that of the whole service and is gone.

func (*driver) uploads() {}

func (*driver) findAndResend() {}

func (*driver) portal(string) {}

func (d *driver) publicKey(string) { d.want(404, "the public key")(d.app.ReadPublicKey(d.ctx)) }

func (d *driver) cancel(task string) (*http.Response, error) { return d.app.CancelTask(d.ctx, task) }

func (d *driver) taskEvents(task string) (*http.Response, error) {
	return d.app.ListTaskEvents(d.ctx, task)
}

func (*driver) findAndResendAsOperator() {}
