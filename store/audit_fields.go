package store

// What the audit log shows of objects. Sealed values are hidden; one that is replaced is called new.

const replaced = hidden + " (new)"

func (ep *Endpoint) fields() fields {
	f := fields{
		"url": ep.URL, "description": ep.Description, "enabled": ep.Enabled, "event_types": ep.EventTypes, "rate_limit": ep.RateLimit,
		"signatures": ep.Signatures,
	}
	if ep.Headers != nil {
		f["headers"] = hidden
	}
	return f
}

func (a *Account) fields() fields {
	return fields{
		"name": a.Name, "api": a.API, "requests_per_second": a.RequestsPerSecond, "uploads_per_minute": a.UploadsPerMinute, "api_key": hidden,
	}
}

func (a *App) fields() fields { return fields{"name": a.Name, "account_id": a.AccountID} }

func (k *APIKey) fields() fields {
	return fields{"key_id": k.ID, "key_name": k.Name, "begins_with": k.Prefix, "rate_limit": k.RateLimit}
}

func (f ResendFilter) fields(matched int64) fields {
	out := fields{"action": f.Action, "status": f.Status, "matched": matched}
	if f.EventType != "" {
		out["event_type"] = f.EventType
	}
	if !f.Since.IsZero() {
		out["since"] = f.Since.UTC()
	}
	if !f.Until.IsZero() {
		out["until"] = f.Until.UTC()
	}
	if id := f.EndpointID; id != [16]byte{} {
		out["endpoint_id"] = id
	}
	return out
}
