package carapi_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

func TestDeleteCar(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path, other := b.create(t, bmw), b.create(t, bmw)
	w := b.do(t, "DELETE", path, "")
	require.Equal(t, 204, w.Code)
	require.Empty(t, w.Body.String())
	require.Empty(t, w.Header().Get("Content-Type"))
	require.Equal(t, "*", w.Header().Get("Access-Control-Allow-Origin"))
	for _, method := range []string{"DELETE", "GET", "PATCH"} {
		require.Equal(t, 404, b.do(t, method, path, `{"year":2023}`).Code, method)
	}
	require.Equal(t, 200, b.do(t, "GET", other, "").Code)
	require.Equal(t, 1, b.count(t, "cars"))
	require.Equal(t, 2, b.count(t, "outbox WHERE aggregate_id = '"+strings.TrimPrefix(path, "/cars/")+"'"), "one event of the end, however often it is asked for")
	require.Equal(t, 1, b.count(t, "outbox WHERE event_type = 'CarDeleted' AND aggregate_version = 2"))
}

func TestNoEventNoDelete(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path := b.create(t, bmw)
	b.exec(t, refuseEvents)
	require.Equal(t, 500, b.do(t, "DELETE", path, "").Code)
	require.Equal(t, 200, b.do(t, "GET", path, "").Code)
}

// The request that gets the row lock first decides. A request that comes after a DELETE finds no car.
func TestConcurrentDeletesAndPatches(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path := b.create(t, bmw)
	var group sync.WaitGroup
	var codes [16]int
	for i := range codes {
		method := []string{"PATCH", "DELETE"}[i%2]
		group.Go(func() { codes[i] = b.do(t, method, path, `{"year":2023}`).Code })
	}
	group.Wait()
	seen := map[int]int{}
	for _, code := range codes {
		seen[code]++
	}
	require.Equal(t, 1, seen[204])
	require.Equal(t, len(codes), seen[200]+seen[204]+seen[404])
	events := b.events(t)
	require.Len(t, events, 1+seen[200]+1)
	require.Equal(t, "CarDeleted", events[len(events)-1].EventType)
	for i, event := range events {
		require.EqualValues(t, i+1, event.AggregateVersion)
	}
}

func TestETagIsTheVersion(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.do(t, "POST", "/cars", bmw)
	path := w.Header().Get("Location")
	require.Equal(t, `"1"`, w.Header().Get("ETag"))
	require.Equal(t, `"1"`, b.do(t, "GET", path, "").Header().Get("ETag"))
	require.Equal(t, `"2"`, b.do(t, "PATCH", path, `{"year":2023}`).Header().Get("ETag"))
	require.Equal(t, `"2"`, b.do(t, "GET", path, "").Header().Get("ETag"))
}

func TestIfMatch(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		header string
		status int // of PATCH; DELETE answers 204 instead of 200
	}{
		"Same":             {`"2"`, 200},
		"Star":             {"*", 200},
		"InAList":          {`"1", "2" ,"3"`, 200},
		"EmptyElements":    {`, "2",,`, 200},
		"BesideAWeakOne":   {`W/"7","2"`, 200},
		"Older":            {`"1"`, 412},
		"Newer":            {`"3"`, 412},
		"NotInAList":       {`"1","3"`, 412},
		"WeakNeverMatches": {`W/"2"`, 412},
		"OtherSpelling":    {`"02"`, 412},
		"NoVersion":        {`"abc"`, 412},
		"CommaInATag":      {`"1,2"`, 412},
		"EmptyTag":         {`""`, 412},
		"Empty":            {"", 400},
		"OnlyCommas":       {" , ", 400},
		"Unquoted":         {"2", 400},
		"HalfQuoted":       {`"2`, 400},
		"NoComma":          {`"1" "2"`, 400},
		"StarInAList":      {`"2", *`, 400},
		"SmallW":           {`w/"2"`, 400},
		"SpaceInATag":      {`"2 "`, 400},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			for method, success := range map[string]int{"PATCH": 200, "DELETE": 204} {
				path := b.create(t, bmw)
				require.Equal(t, 200, b.do(t, "PATCH", path, `{"year":2021}`).Code)
				events := len(b.events(t))
				w := b.do(t, method, path, `{"color":"red"}`, "If-Match", test.header)
				if test.status == 200 {
					require.Equal(t, success, w.Code, w.Body)
					continue
				}
				require.Equal(t, test.status, w.Code, w.Body)
				require.Len(t, b.events(t), events, "nothing was changed")
				if test.status == 412 {
					require.JSONEq(t, `{"error":"the car has changed: its ETag is not the one of If-Match"}`, w.Body.String())
				} else {
					require.Equal(t, map[string]any{"If-Match": `must be * or a list of entity tags such as "3"`}, decode(t, w.Body.Bytes())["fields"])
				}
			}
		})
	}
	t.Run("SeveralHeaders", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		path := b.create(t, bmw)
		require.Equal(t, 200, b.do(t, "PATCH", path, `{"year":2021}`, "If-Match", `"9"`, "If-Match", `"1"`).Code)
	})
	t.Run("NoCarIs404", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		require.Equal(t, 404, b.do(t, "DELETE", "/cars/"+uuid.NewString(), "", "If-Match", `"1"`).Code)
	})
}

// Many clients have read the same version, and only one of them may change it. So no change is lost.
func TestOneOfManyIfMatchWins(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path := b.create(t, bmw)
	var group sync.WaitGroup
	var codes [12]int
	for i := range codes {
		group.Go(func() { codes[i] = b.do(t, "PATCH", path, fmt.Sprintf(`{"year":%d}`, 2000+i), "If-Match", `"1"`).Code })
	}
	group.Wait()
	seen := map[int]int{}
	for _, code := range codes {
		seen[code]++
	}
	require.Equal(t, map[int]int{200: 1, 412: len(codes) - 1}, seen)
	require.Len(t, b.events(t), 2)
}

func TestListCars(t *testing.T) {
	t.Parallel()
	b := setup(t)
	page := func(query string) (ids []string, next any) {
		w := b.do(t, "GET", "/cars"+query, "")
		require.Equal(t, 200, w.Code, w.Body)
		answer := decode(t, w.Body.Bytes())
		require.Len(t, answer, 2)
		for _, car := range answer["cars"].([]any) {
			ids = append(ids, car.(map[string]any)["id"].(string))
		}
		return ids, answer["next"]
	}
	require.JSONEq(t, `{"cars":[],"next":null}`, b.do(t, "GET", "/cars", "").Body.String())

	var all []string
	for range 21 {
		all = append(all, strings.TrimPrefix(b.create(t, bmw), "/cars/"))
	}
	ids, next := page("")
	require.Equal(t, all[:20], ids, "20 by default, in the order of creation")
	require.Equal(t, all[19], next)
	ids, next = page("?limit=21")
	require.Equal(t, all, ids)
	require.Nil(t, next, "no empty page at the end")
	ids, next = page("?limit=100&other=1")
	require.Equal(t, all, ids)
	require.Nil(t, next)

	var seen []string
	query := "?limit=4"
	for query != "" {
		ids, next := page(query)
		require.LessOrEqual(t, len(ids), 4)
		seen = append(seen, ids...)
		if len(seen) == 8 { // changes between two pages move no car to another page
			require.Equal(t, 204, b.do(t, "DELETE", "/cars/"+all[2], "").Code)
			require.Equal(t, 204, b.do(t, "DELETE", "/cars/"+all[7], "").Code, "the cursor itself")
			all = append(all, strings.TrimPrefix(b.create(t, bmw), "/cars/"))
		}
		query = ""
		if next != nil {
			query = "?limit=4&after=" + next.(string)
		}
	}
	require.Equal(t, all, seen)
}

func TestListRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const limit, after = "must be from 1 to 100", "must be the next of another page"
	for query, fields := range map[string]map[string]any{
		"limit=0":                          {"limit": limit},
		"limit=101":                        {"limit": limit},
		"limit=-1":                         {"limit": limit},
		"limit=":                           {"limit": limit},
		"limit=ten":                        {"limit": limit},
		"limit=1e1":                        {"limit": limit},
		"limit=99999999999999999999":       {"limit": limit},
		"after=":                           {"after": after},
		"after=x":                          {"after": after},
		"after=%00":                        {"after": after},
		"after=" + strings.Repeat("0", 32): {"after": after},
		"limit=x&after=y":                  {"limit": limit, "after": after},
	} {
		t.Run(query, func(t *testing.T) {
			t.Parallel()
			w := b.do(t, "GET", "/cars?"+query, "")
			require.Equal(t, 400, w.Code, w.Body)
			require.Equal(t, fields, decode(t, w.Body.Bytes())["fields"])
		})
	}
	t.Run("NoQuery", func(t *testing.T) {
		t.Parallel()
		require.Equal(t, 400, b.do(t, "GET", "/cars?limit=%zz", "").Code)
	})
}
