package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"

	"golang.org/x/sync/errgroup"
)

const (
	clients = 8
	// changedShare of the cars, at least one, are changed by changesPerCar concurrent requests each: only a car with several
	// versions has an order to lose.
	changedShare  = 10
	changesPerCar = 5
)

// written is what the API said it had done.
type written struct {
	cars, updates int
	created       map[string]json.RawMessage   // car id -> the car of the 201
	changed       map[string][]json.RawMessage // car id -> the cars of the 200s, in any order
}

// traceparent goes along with every third car.
const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// write creates cars over HTTP and changes some of them.
func write(ctx context.Context, apiURL string, cars int) (written, error) {
	w := written{created: make(map[string]json.RawMessage, cars), changed: map[string][]json.RawMessage{}}
	ids := make([]string, cars)
	var mu sync.Mutex
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	defer client.CloseIdleConnections()

	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(clients)
	for i := range cars {
		group.Go(func() error {
			body := fmt.Sprintf(`{"make":"Maker %d","model":"Modèle <%d> & \"co\"","year":%d,"color":"Blue"}`, i%7, i, 1990+i%30)
			var answer struct{ Car json.RawMessage }
			if err := call(groupCtx, client, http.MethodPost, apiURL+"/cars", body, i%3 == 0, http.StatusCreated, &answer); err != nil {
				return err
			}
			var car struct{ ID string }
			if err := json.Unmarshal(answer.Car, &car); err != nil {
				return fmt.Errorf("reading the answer to POST /cars: %w", err)
			}
			ids[i] = car.ID
			mu.Lock()
			defer mu.Unlock()
			w.created[car.ID] = answer.Car
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return written{}, err
	}

	changed := max(1, cars/changedShare)
	group, groupCtx = errgroup.WithContext(ctx)
	group.SetLimit(clients)
	for _, id := range ids[:changed] {
		for n := range changesPerCar {
			group.Go(func() error {
				body := fmt.Sprintf(`{"color":"Color %d"}`, n)
				var answer struct{ Car json.RawMessage }
				if err := call(groupCtx, client, http.MethodPatch, apiURL+"/cars/"+id, body, false, http.StatusOK, &answer); err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				w.changed[id] = append(w.changed[id], answer.Car)
				return nil
			})
		}
	}
	if err := group.Wait(); err != nil {
		return written{}, err
	}
	w.cars, w.updates = cars, changed*changesPerCar
	return w, nil
}

func call(ctx context.Context, client *http.Client, method, target, body string, traced bool, want int, answer any) error {
	request, err := http.NewRequestWithContext(ctx, method, target, bytes.NewBufferString(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	if traced {
		request.Header.Set("Traceparent", traceparent)
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, target, err)
	}
	if response.StatusCode != want {
		return fmt.Errorf("%s %s answered %d, not %d: %s", method, target, response.StatusCode, want, content)
	}
	return json.Unmarshal(content, answer)
}

// withDatabase returns the URL with another database name.
func withDatabase(databaseURL, name string) (string, error) {
	u, err := url.Parse(databaseURL)
	if err != nil || u.Scheme == "" {
		return "", fmt.Errorf("DATABASE_URL must be a URL such as postgres://user:password@host:5432/database")
	}
	u.Path = "/" + name
	return u.String(), nil
}
