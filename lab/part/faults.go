package part

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"

	"rds-outbox-demo/lab/awslocal"
)

// FaultPath is where a listener that runs as a process of its own takes faults: POST a Fault as JSON to switch it on (the answer is its
// id), GET FaultPath/<id> tells how often it struck, DELETE switches it off. An id does not survive its process.
const FaultPath = "/faults/"

func faultHandler(faults *awslocal.Faults) http.Handler {
	var mu sync.Mutex
	var all []*awslocal.Active
	find := func(r *http.Request) *awslocal.Active {
		mu.Lock()
		defer mu.Unlock()
		id, err := strconv.Atoi(r.PathValue("id"))
		if err != nil || id < 0 || id >= len(all) {
			return nil
		}
		return all[id]
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+FaultPath, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Origin") != "" {
			http.Error(w, "requests of web pages are refused", http.StatusForbidden)
			return
		}
		var fault awslocal.Fault
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&fault)
		if err == nil {
			err = fault.Validate()
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		all = append(all, faults.Add(fault))
		fmt.Fprint(w, len(all)-1)
	})
	mux.HandleFunc("GET "+FaultPath+"{id}", func(w http.ResponseWriter, r *http.Request) {
		if active := find(r); active != nil {
			fmt.Fprint(w, active.Struck())
			return
		}
		http.NotFound(w, r)
	})
	mux.HandleFunc("DELETE "+FaultPath+"{id}", func(w http.ResponseWriter, r *http.Request) {
		if active := find(r); active != nil {
			active.Off()
			return
		}
		http.NotFound(w, r)
	})
	return mux
}

// ErrNoFault means that the listener does not know the fault: it was started again since.
var ErrNoFault = errors.New("the listener knows no such fault")

// FaultClient switches faults of a listener in another process.
type FaultClient struct {
	URL string // of the listener
}

// Add switches a fault on.
func (c FaultClient) Add(ctx context.Context, fault awslocal.Fault) (id int, err error) {
	body, err := json.Marshal(fault)
	if err != nil {
		return 0, err
	}
	return c.call(ctx, http.MethodPost, "", body)
}

// Struck is how often the fault struck so far.
func (c FaultClient) Struck(ctx context.Context, id int) (int, error) {
	return c.call(ctx, http.MethodGet, strconv.Itoa(id), nil)
}

// Off switches the fault off.
func (c FaultClient) Off(ctx context.Context, id int) error {
	_, err := c.call(ctx, http.MethodDelete, strconv.Itoa(id), nil)
	return err
}

func (c FaultClient) call(ctx context.Context, method, id string, body []byte) (number int, err error) {
	request, err := http.NewRequestWithContext(ctx, method, c.URL+FaultPath+id, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, fmt.Errorf("asking the listener: %w", err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	switch {
	case err != nil:
		return 0, fmt.Errorf("asking the listener: %w", err)
	case response.StatusCode == http.StatusNotFound:
		return 0, ErrNoFault
	case response.StatusCode != http.StatusOK:
		return 0, fmt.Errorf("asking the listener: %s", answer)
	case len(answer) == 0:
		return 0, nil
	}
	return strconv.Atoi(string(answer))
}
