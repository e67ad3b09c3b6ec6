// Package plural writes numbers with their nouns.
package plural

import "fmt"

// Of is "1 event", "0 events" or "2 events".
func Of[N ~int | ~int64](n N, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}
