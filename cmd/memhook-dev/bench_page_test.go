package main

import (
	"slices"
	"testing"
)

func TestAFigureIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	same := func(v float64) float64 { return v }
	for _, c := range []struct {
		values []float64
		want   bar
	}{
		{[]float64{9591.2, 9199, 9647.4}, bar{text: "9591", value: 9591, least: 9199, most: 9647}},
		{[]float64{42}, bar{text: "42", value: 42, least: 42, most: 42}},
	} {
		if got, ok := readFigure(spread(c.values, 0, same)); !ok || got != c.want {
			t.Errorf("of %v: %+v, want %+v", c.values, got, c.want)
		}
	}
	if _, ok := readFigure("–"); ok {
		t.Error("a dash is read as a figure")
	}
}

func TestChartsFindTheirRows(t *testing.T) {
	t.Parallel()
	r := benchOutput{}.newReport("deliveries", "", "deliveries/s", "p50 ms")
	r.row("50 URLs", "9591 (9199–9647)", "–")
	r.target("deliveries/s", "5,000", "9591", true)
	text := "text\n<!-- deliveries -->\n" + r.markdown() + "<!-- /deliveries -->\n<!-- outpost -->\n<!-- /outpost -->\n"
	bars := chart{tables: []string{"deliveries", "outpost"}, column: "deliveries/s"}.bars(text)
	want := []bar{{name: "50 URLs", text: "9591", value: 9591, least: 9199, most: 9647, colour: chartColours[0]}}
	if !slices.Equal(bars, want) {
		t.Errorf("found %+v, want %+v", bars, want)
	}
	if bars := (chart{tables: []string{"deliveries"}, column: "p50 ms"}).bars(text); bars != nil {
		t.Errorf("found %+v where nothing was measured", bars)
	}
}

func TestPartsOfStatements(t *testing.T) {
	t.Parallel()
	for sql, want := range map[string]string{
		"with result as materialized ( select * from unnest($1::uuid[]) ) insert into attempts (delivery_id)": "record attempts",
		"-- name: JobGetAvailable :many\nWITH locked_jobs AS (SELECT id FROM river_job)":                      "fetch jobs",
		"insert into events (id) select id from unnest($1::uuid[]) as n (id)":                                 "insert event, delivery and job",
		"copy \"river_job\" ( \"args\" ) from stdin binary":                                                   "insert event, delivery and job",
		"update tasks t set status = n.status from unnest($1::uuid[]) as n (id) where t.id = n.id":            recordPolls,
		"vacuum": "the rest",
	} {
		if got := parts[partOf(sql, func(p part) []string { return p.sql })].name; got != want {
			t.Errorf("%s: %s, want %s", sql, got, want)
		}
	}
}
