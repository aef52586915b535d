package dashboard

import (
	"net/http"

	"github.com/memhook/memhook/store"
)

// searchText is how many characters of a search are taken.
const searchText = 500

type searchData struct {
	store.Found
	Lines       []deliveryLine
	UploadLines []uploadLine
	Text        string
}

// search finds what an operator has an id, a URL or a value of.
func (d *dashboard) search(r *http.Request) (*view, error) {
	data := searchData{Text: storable(r.URL.Query().Get("q"), searchText)}
	v := &view{template: "search", Title: "Search"}
	if data.Text == "" {
		v.Data = data
		return v, nil
	}
	var err error
	if data.Found, err = d.store.Search(r.Context(), store.Everything(), data.Text, store.SearchMost); err != nil {
		return nil, err
	}
	for _, u := range data.Uploads {
		data.UploadLines = append(data.UploadLines, uploadLine{Upload: u})
	}
	data.Lines, err = d.deliveryLines(r, data.Deliveries)
	v.Data = data
	return v, err
}
