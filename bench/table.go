package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"text/tabwriter"
)

// figure is one row: what Hufu does in a second, and what the limit or peer does.
type figure struct {
	Name        string  `json:"name"`
	Hufu        float64 `json:"hufu"`
	Against     float64 `json:"against"`
	AgainstName string  `json:"against_name"`
	Ratio       float64 `json:"ratio"`
	Goal        float64 `json:"goal"`
	Unit        string  `json:"unit"`
}

func newFigure(name string, hufu, against float64, againstName string, goal float64, unit string) figure {
	return figure{name, round(hufu, 1), round(against, 1), againstName, round(hufu/against, 3), goal, unit}
}

// newTime is a figure of which less is better: the ratio is turned round.
func newTime(name string, hufu, against float64, againstName string, goal float64, unit string) figure {
	return figure{name, round(hufu, 2), round(against, 2), againstName, round(against/hufu, 3), goal, unit}
}

func round(v float64, digits int) float64 {
	p := math.Pow10(digits)
	return math.Round(v*p) / p
}

func printTable(w io.Writer, figures []figure) {
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "figure\tHufu\tlimit or peer\tratio\tgoal\t\t")
	for _, f := range figures {
		verdict := "met"
		if f.Ratio < f.Goal {
			verdict = "below"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%.2f\t%.2f\t%s\t\n", f.Name, thousands(f.Hufu), thousands(f.Against), f.Ratio, f.Goal, verdict)
	}
	t.Flush()
	fmt.Fprintln(w, "\nMedians of rounds in which the sides took turns. Ratio: of rates Hufu / limit or peer, of times and sizes the other way round; higher is better.")
	for _, f := range figures {
		fmt.Fprintf(w, "  %-22s  %s, against: %s\n", f.Name, f.Unit, f.AgainstName)
	}
}

func writeJSON(path string, figures []figure) error {
	raw, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(raw, '\n'), 0o644)
}

// thousands writes a rate with commas, and what is small with a decimal.
func thousands(v float64) string {
	if v < 1000 && v != math.Trunc(v) {
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	s := strconv.FormatInt(int64(math.Round(v)), 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
