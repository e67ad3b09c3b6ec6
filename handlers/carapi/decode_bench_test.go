package carapi

import (
	"testing"

	"rds-outbox-demo/lab/labtest"
)

// BenchmarkReadCar measures reading a POST's body, which comes before any call of the database.
func BenchmarkReadCar(b *testing.B) {
	body := []byte(`{"make":"Toyota","model":"Camry","year":2023,"color":"Blue"}`)
	defer labtest.AllocsAtMost(b, 29)()
	for b.Loop() {
		if _, err := readCar(body, 2030, true); err != nil {
			b.Fatal(err)
		}
	}
}
