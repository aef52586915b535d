package dashboard

import (
	"net/http"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"

	"github.com/memhook/memhook/store"
)

// choices is the maximum number of accounts that a form offers.
const choices = 500

type appsData struct {
	listData[store.App]
	Accounts []store.Account
	Names    map[string]string // of the accounts, by id
}

func (d *dashboard) apps(r *http.Request) (*view, error) {
	list, links, err := paged(r, func(a *store.App) uuid.UUID { return a.ID }, whole(func(p store.Page) ([]store.App, error) {
		return d.store.Apps(r.Context(), p)
	}))
	if err != nil {
		return nil, err
	}
	accounts, err := d.store.Accounts(r.Context(), store.Page{Limit: choices})
	if err != nil {
		return nil, err
	}
	names := make(map[string]string, len(accounts))
	data := appsData{listData: listData[store.App]{pager: links, Rows: list}, Accounts: accounts, Names: names}
	for _, a := range accounts {
		data.Names[a.ID.String()] = a.Name
	}
	return &view{template: "apps", Title: "Apps and keys", Data: data}, nil
}

type appData struct {
	store.App
	Keys     []store.APIKey
	Accounts []store.Account
	NewKey   string // shown this once
}

func (d *dashboard) app(r *http.Request) (*view, error) {
	a, err := d.store.App(r.Context(), pathID(r))
	if err != nil {
		return nil, err
	}
	data := appData{App: a}
	if data.Keys, err = d.store.Keys(r.Context(), a.ID, store.Page{Limit: choices}); err != nil {
		return nil, err
	}
	if data.Accounts, err = d.store.Accounts(r.Context(), store.Page{Limit: choices}); err != nil {
		return nil, err
	}
	return &view{template: "app", Title: "App " + a.Name, Data: data}, nil
}

func (d *dashboard) createApp(r *http.Request) (to, done string, err error) {
	name := formText(r, "name")
	account, err := uuid.Parse(r.PostFormValue("account_id"))
	if err != nil || name == "" {
		return "", "", badInput("An app needs a name and an account.")
	}
	a, err := d.store.CreateApp(r.Context(), name, account)
	return "/admin/apps/" + a.ID.String(), "The app was created; create a key for it next", err
}

func (d *dashboard) updateApp(r *http.Request) (to, done string, err error) {
	name := formText(r, "name")
	account, err := uuid.Parse(r.PostFormValue("account_id"))
	if err != nil || name == "" {
		return "", "", badInput("An app needs a name and an account.")
	}
	a, err := d.store.UpdateApp(r.Context(), pathID(r), &name, &account)
	return "/admin/apps/" + a.ID.String(), "The app was updated", err
}

func (d *dashboard) deleteApp(r *http.Request) (to, done string, err error) {
	return "/admin/apps", "The app was deleted", d.store.DeleteApp(r.Context(), pathID(r))
}

// createKey answers with the page itself instead of a redirect, because the key is shown only once.
func (d *dashboard) createKey(r *http.Request) (*view, error) {
	limit, err := formRate(r, "rate_limit", "Requests per second", 100_000)
	if err != nil {
		return nil, err
	}
	r, e := d.auditing(r, "create-key")
	_, plain, err := d.store.CreateKey(r.Context(), pathID(r), formText(r, "name"), limit)
	if err != nil {
		return nil, err
	}
	d.audit(r, e)
	v, err := d.app(r)
	if err != nil {
		return nil, err
	}
	data, _ := v.Data.(appData)
	data.NewKey = plain
	v.Data, v.Flash = data, "Copy the key now. It is not shown again."
	return v, nil
}

func (d *dashboard) revokeKey(r *http.Request) (to, done string, err error) {
	id := pathID(r)
	err = d.store.RevokeKey(r.Context(), id, filterID(chi.URLParam(r, "key")))
	return "/admin/apps/" + id.String(), "The key was revoked; it stops working within one second", err
}
