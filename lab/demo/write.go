package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"golang.org/x/sync/errgroup"

	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/judge"
)

const (
	clients = 8
	// changedShare of the cars, at least one, are changed by changesPerCar concurrent requests
	// each, because only a car with several versions has an order to lose.
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
			r := judge.Request{Op: judge.Create, Token: fmt.Sprintf("Token %d", i), Answer: judge.Done}
			r.Car, r.CarID, err = call(groupCtx, client, http.MethodPost, apiURL+domain.Path, domain.Create(i, r.Token), i%3 == 0, http.StatusCreated)
			requests[i] = r
			return err
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
				r := judge.Request{Op: judge.Update, CarID: created.CarID, Token: fmt.Sprintf("Token %d, change %d", i, n), Answer: judge.Done}
				r.Car, _, err = call(groupCtx, client, http.MethodPatch, apiURL+domain.Path+"/"+created.CarID, domain.Change(n, r.Token), false, http.StatusOK)
				requests[cars+i*changesPerCar+n] = r
				return err
			})
		}
	}
	return requests, group.Wait()
}

// call returns the car of the answer, and its id.
func call(ctx context.Context, client *http.Client, method, target, body string, traced bool, want int) (car json.RawMessage, id string, err error) {
	var header []string
	if traced {
		header = []string{"Traceparent", traceparent}
	}
	status, answer, err := domain.Send(ctx, client, method, target, body, header...)
	if err != nil {
		return nil, "", err
	}
	if car, id = domain.Read(answer); status != want || id == "" {
		return nil, "", fmt.Errorf("%s %s answered %d, not %d: %s", method, target, status, want, answer)
	}
	return car, id, nil
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
