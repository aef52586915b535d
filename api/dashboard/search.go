package dashboard

import (
	"net/http"
	"unicode/utf8"

	"github.com/memhook/memhook/store"
)

const (
	// searchMost is how many of each kind a search shows. It needs searchLeast characters and takes searchText.
	searchMost, searchLeast, searchText = 20, 3, 500
)

type searchData struct {
	store.Found
	Lines       []deliveryLine
	UploadLines []uploadLine
	Text        string
	Short       bool // the text is too short to search for
}

// search finds what an operator has an id, a URL or a value of. What was found alone is shown at once.
func (d *dashboard) search(r *http.Request) (*view, error) {
	data := searchData{Text: storable(r.URL.Query().Get("q"), searchText)}
	v := &view{template: "search", Title: "Search"}
	if utf8.RuneCountInString(data.Text) < searchLeast {
		data.Short = true
		v.Data = data
		return v, nil
	}
	var err error
	if data.Found, err = d.store.Search(r.Context(), store.Everything(), data.Text, searchMost); err != nil {
		return nil, err
	}
	for _, u := range data.Uploads {
		data.UploadLines = append(data.UploadLines, uploadLine{Upload: u})
	}
	data.Lines, err = d.lines(r, data.Deliveries)
	v.Data = data
	return v, err
}
