package dashboard

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/google/uuid"

	"github.com/memhook/memhook/memories"
	"github.com/memhook/memhook/store"
)

func (d *dashboard) accounts(r *http.Request) (*view, error) {
	list, links, err := paged(r, func(a *store.Account) uuid.UUID { return a.ID }, whole(func(p store.Page) ([]store.Account, error) {
		return d.store.Accounts(r.Context(), p)
	}))
	if err != nil {
		return nil, err
	}
	backlogs, err := d.store.Backlogs(r.Context())
	if err != nil {
		return nil, err
	}
	byName := backlogsByName(backlogs)
	data := listData[accountLine]{pager: links, Rows: make([]accountLine, len(list))}
	for i, a := range list {
		data.Rows[i] = accountLineOf(a, byName)
	}
	return &view{template: "accounts", Title: "Accounts", Live: 3, Data: data}, nil
}

func (d *dashboard) account(r *http.Request) (*view, error) {
	id, err := pathID(r)
	if err != nil {
		return nil, err
	}
	a, err := d.store.Account(r.Context(), id)
	if err != nil {
		return nil, err
	}
	backlogs, err := d.store.Backlogs(r.Context())
	if err != nil {
		return nil, err
	}
	return &view{template: "account", Title: "Account " + a.Name, Live: 3, Data: accountLineOf(a, backlogsByName(backlogs))}, nil
}

// accountOrDeleted returns an account, or one named so where it is gone.
func (d *dashboard) accountOrDeleted(r *http.Request, id uuid.UUID) (store.Account, error) {
	a, err := d.store.Account(r.Context(), id)
	if errors.Is(err, store.ErrNotFound) {
		return store.Account{Name: "deleted"}, nil
	}
	return a, err
}

// accountForm reads the fields of an account. Empty fields are nil.
func accountForm(r *http.Request) (c store.AccountChange, err error) {
	if name := formText(r, "name"); name != "" {
		c.Name = &name
	}
	if key := formText(r, "api_key"); key != "" {
		if !store.ValidKey(key) {
			return c, badInput("An API key has only printable ASCII characters and no spaces.")
		}
		c.APIKey = &key
	}
	if api := formText(r, "api"); api != "" {
		if api != store.AccountV1 && api != store.AccountDatalake {
			return c, badInput("The API must be v1 or datalake.")
		}
		c.API = &api
	} else if c.APIKey != nil {
		c.API = new(string(memories.APIOf(*c.APIKey)))
	}
	if c.RequestsPerSecond, err = formRate(r, "requests_per_second", "Requests per second", 1000); err != nil {
		return c, err
	}
	c.UploadsPerMinute, err = formRate(r, "uploads_per_minute", "Uploads per minute", 6000)
	return c, err
}

// leastRate is the least of every budget and rate, as in the API.
const leastRate = 0.01

// formRate reads a number from leastRate to most. An empty field is nil.
func formRate(r *http.Request, field, label string, most float64) (*float64, error) {
	text := formText(r, field)
	if text == "" {
		return nil, nil
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || !(n >= leastRate && n <= most) {
		return nil, badInput(fmt.Sprintf("%s must be empty, or a number from %g to %g.", label, leastRate, most))
	}
	return &n, nil
}

// formText reads a field of a form.
func formText(r *http.Request, name string) string { return storable(r.PostFormValue(name), maxText) }

func (d *dashboard) createAccount(r *http.Request) (to, done string, err error) {
	c, err := accountForm(r)
	if err != nil {
		return "", "", err
	}
	if c.Name == nil || c.APIKey == nil {
		return "", "", badInput("An account needs a name and an API key of memories.ai.")
	}
	budget := 1.0
	if c.RequestsPerSecond != nil {
		budget = *c.RequestsPerSecond
	}
	a, err := d.store.CreateAccount(r.Context(), store.NewAccount{
		Name: *c.Name, APIKey: *c.APIKey, API: *c.API, RequestsPerSecond: budget, UploadsPerMinute: c.UploadsPerMinute,
	})
	return "/admin/accounts/" + a.ID.String(), "The account was created", err
}

func (d *dashboard) updateAccount(r *http.Request) (to, done string, err error) {
	id, err := pathID(r)
	if err != nil {
		return "", "", err
	}
	c, err := accountForm(r)
	if err != nil {
		return "", "", err
	}
	_, err = d.store.UpdateAccount(r.Context(), id, c)
	return "/admin/accounts/" + id.String(), "The account was updated; the change takes effect at once", err
}

func (d *dashboard) deleteAccount(r *http.Request) (to, done string, err error) {
	id, err := pathID(r)
	if err == nil {
		err = d.store.DeleteAccount(r.Context(), id)
	}
	return "/admin/accounts", "The account was deleted", err
}
