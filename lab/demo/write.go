package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"golang.org/x/sync/errgroup"

	"rds-outbox-demo/lab/judge"
)

const (
	clients = 8
	// changedShare of the cars, at least one, are changed by changesPerCar concurrent requests each: only a car with several
	// versions has an order to lose.
	changedShare  = 10
	changesPerCar = 5
)

// traceparent goes along with every third car.
const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// write creates cars over HTTP and changes some of them. It returns the requests as the judge knows them. All were answered with
// success.
func write(ctx context.Context, apiURL string, cars int) ([]judge.Request, error) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	defer client.CloseIdleConnections()
	changed := max(1, cars/changedShare)
	requests := make([]judge.Request, cars+changed*changesPerCar)

	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(clients)
	for i := range cars {
		group.Go(func() (err error) {
			color := fmt.Sprintf("Color %d", i)
			body := fmt.Sprintf(`{"make":"Maker %d","model":"Modèle <%d> & \"co\"","year":%d,"color":%q}`, i%7, i, 1990+i%30, color)
			requests[i] = judge.Request{Op: judge.Create, Token: color, Answer: judge.Done}
			requests[i].Car, err = call(groupCtx, client, http.MethodPost, apiURL+"/cars", body, i%3 == 0, http.StatusCreated)
			if err != nil {
				return err
			}
			var car struct{ ID string }
			if err := json.Unmarshal(requests[i].Car, &car); err != nil {
				return fmt.Errorf("reading the answer to POST /cars: %w", err)
			}
			requests[i].CarID = car.ID
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}

	group, groupCtx = errgroup.WithContext(ctx)
	group.SetLimit(clients)
	for i, created := range requests[:changed] {
		for n := range changesPerCar {
			group.Go(func() (err error) {
				color := fmt.Sprintf("Color %d, change %d", i, n)
				change := judge.Request{Op: judge.Update, CarID: created.CarID, Token: color, Answer: judge.Done}
				body := fmt.Sprintf(`{"color":%q}`, color)
				change.Car, err = call(groupCtx, client, http.MethodPatch, apiURL+"/cars/"+created.CarID, body, false, http.StatusOK)
				requests[cars+i*changesPerCar+n] = change
				return err
			})
		}
	}
	return requests, group.Wait()
}

// call returns the car of the answer.
func call(ctx context.Context, client *http.Client, method, target, body string, traced bool, want int) (car json.RawMessage, err error) {
	request, err := http.NewRequestWithContext(ctx, method, target, bytes.NewBufferString(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	if traced {
		request.Header.Set("Traceparent", traceparent)
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, target, err)
	}
	if response.StatusCode != want {
		return nil, fmt.Errorf("%s %s answered %d, not %d: %s", method, target, response.StatusCode, want, content)
	}
	var answer struct{ Car json.RawMessage }
	if err := json.Unmarshal(content, &answer); err != nil {
		return nil, fmt.Errorf("reading the answer to %s %s: %w", method, target, err)
	}
	return answer.Car, nil
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
