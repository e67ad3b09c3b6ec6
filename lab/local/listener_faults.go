package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"rds-outbox-demo/lab/awslocal"
	"rds-outbox-demo/lab/domain"
)

// FaultPath is where a listener that runs as a process of its own takes faults. PUT a Fault as JSON
// to FaultPath<id> to switch it on. GET returns how often it struck, and DELETE switches it off.
// The client chooses the id, so that a call whose answer was lost can be made again. A fault ends
// with its process.
const FaultPath = "/faults/"

func faultHandler(faults *awslocal.Faults) http.Handler {
	var mu sync.Mutex
	all := map[string]*awslocal.Active{}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		id := strings.TrimPrefix(r.URL.Path, FaultPath)
		active := all[id]
		switch {
		case r.Header.Get("Origin") != "":
			http.Error(w, "requests of web pages are refused", http.StatusForbidden)
		case r.Method == http.MethodPut && active == nil:
			var fault awslocal.Fault
			err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&fault)
			if err == nil {
				err = fault.Validate()
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			all[id] = faults.Add(fault)
		case r.Method == http.MethodPut: // once more, because the answer was lost
		case active == nil:
			http.NotFound(w, r)
		case r.Method == http.MethodGet:
			fmt.Fprint(w, active.Struck())
		case r.Method == http.MethodDelete:
			active.Off()
		default:
			w.WriteHeader(http.StatusMethodNotAllowed)
		}
	})
}

// ErrNoFault means that the listener does not know the fault, because it was started again since.
var ErrNoFault = errors.New("the listener knows no such fault")

// FaultClient switches faults of a listener in another process.
type FaultClient struct {
	URL string // of the listener
}

// On switches a fault on under an id that is no other's. One that is on stays on.
func (c FaultClient) On(ctx context.Context, id string, fault awslocal.Fault) error {
	body, err := json.Marshal(fault)
	if err != nil {
		return err
	}
	_, err = c.call(ctx, http.MethodPut, id, string(body))
	return err
}

// Struck returns how often the fault struck so far. It returns ErrNoFault when the listener was
// started again since the fault was switched on.
func (c FaultClient) Struck(ctx context.Context, id string) (int, error) {
	return c.call(ctx, http.MethodGet, id, "")
}

// Off switches the fault off. It is not an error when the listener does not know the fault.
func (c FaultClient) Off(ctx context.Context, id string) error {
	if _, err := c.call(ctx, http.MethodDelete, id, ""); !errors.Is(err, ErrNoFault) {
		return err
	}
	return nil
}

func (c FaultClient) call(ctx context.Context, method, id, body string) (number int, err error) {
	status, answer, err := domain.Send(ctx, http.DefaultClient, method, c.URL+FaultPath+id, body)
	switch {
	case err != nil:
		return 0, fmt.Errorf("asking the listener: %w", err)
	case status == http.StatusNotFound:
		return 0, ErrNoFault
	case status != http.StatusOK:
		return 0, fmt.Errorf("asking the listener: %s", answer)
	case len(answer) == 0:
		return 0, nil
	}
	return strconv.Atoi(string(answer))
}
