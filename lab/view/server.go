package view

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"path"
	"strconv"

	"rds-outbox-demo/lab/domain"
	"rds-outbox-demo/lab/local"
)

//go:embed page
var page embed.FS

var templates = template.Must(template.ParseFS(page, "page/*.html"))

// contentTypes are the types of the page's files. Package mime would take them from the machine's
// own list.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
}

const (
	maxCommand = 4 << 10 // bytes of a body that switches something
	maxCar     = 1 << 20 // bytes of a body for the API, which has the same limit
)

// meta is everything that does not change while the view runs.
type meta struct {
	APIURL   string             `json:"apiUrl"`
	MaxLoad  int                `json:"maxLoad"`
	Hops     []hopDefinition    `json:"hops"`
	Switches []switchDefinition `json:"switches"`
	Tour     []experiment       `json:"tour"`
	Samples  []json.RawMessage  `json:"samples"` // bodies for the form
}

// samples are all that differ by kind and token.
var samples = func() (all []json.RawMessage) {
	for n := range 35 {
		all = append(all, json.RawMessage(domain.Sample(n)))
	}
	return all
}()

func (v *View) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		show(w, "index.html", struct {
			Token  string
			Fields []domain.Field
		}{v.token, domain.Fields})
	})
	mux.HandleFunc("GET /page/{file}", func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("file")
		content, err := page.ReadFile("page/" + name)
		kind := contentTypes[path.Ext(name)]
		if err != nil || kind == "" || path.Ext(name) == ".html" { // an HTML file is a template
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write(content)
	})
	mux.HandleFunc("GET /meta", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, meta{v.path.APIURL, maxLoad, hops, v.switches.definitions(), experiments, samples})
	})
	mux.Handle("GET /live", v.frames)
	mux.HandleFunc("GET /contracts", v.getContracts)
	mux.Handle("GET /events/{id}", respond(v.getEvent))
	mux.Handle("GET /events/{id}/where", respond(v.getWhere))
	mux.HandleFunc("POST "+domain.Path, v.postCar)
	mux.Handle("POST /switches/{name}", respond(v.postSwitch))
	mux.Handle("POST /load", respond(v.postLoad))
	mux.Handle("POST /tour/{n}", respond(v.postTour))
	mux.Handle("POST /tour/next", respond(func(*http.Request) (any, error) {
		err := v.tour.goOn()
		return v.tour.state(), err
	}))
	mux.Handle("DELETE /tour", respond(func(*http.Request) (any, error) {
		v.tour.stop()
		return v.tour.state(), nil
	}))
	mux.Handle("POST /relay/{action}", respond(v.postRelay))
	return mux
}

// show answers with a page.
func show(w http.ResponseWriter, name string, content any) {
	w.Header().Set("Content-Type", contentTypes[".html"])
	_ = templates.ExecuteTemplate(w, name, content)
}

// respond answers with what do returns, or with its error.
func respond(do func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxCommand)
		body, err := do(r)
		if err != nil {
			refuse(w, err)
			return
		}
		answer(w, http.StatusOK, body)
	})
}

// answer writes JSON in which no browser takes a text for HTML, because <, > and & are escaped and
// the content type is set.
func answer(w http.ResponseWriter, status int, body any) {
	content, err := json.Marshal(body)
	if err != nil {
		status, content = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(content)
}

// refusal is an error that a client may know, with its status.
type refusal struct {
	status int
	why    string
}

func (e refusal) Error() string { return e.why }

// refuse answers an error with its status.
func refuse(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	var refused refusal
	var notNow local.NotNowError
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &refused):
		status = refused.status
	case errors.As(err, &notNow):
		status = http.StatusConflict
	case errors.As(err, &large):
		status, err = http.StatusRequestEntityTooLarge, fmt.Errorf("the body is larger than %d bytes", large.Limit)
	}
	answer(w, status, map[string]string{"error": err.Error()})
}

// read reads a body of JSON.
func read(r *http.Request, into any) error {
	content, err := readAll(r)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(content, into); err != nil {
		return refusal{http.StatusBadRequest, "the body is not as expected: " + err.Error()}
	}
	return nil
}

func readAll(r *http.Request) ([]byte, error) {
	content, err := io.ReadAll(r.Body)
	var large *http.MaxBytesError
	if err == nil || errors.As(err, &large) {
		return content, err
	}
	return nil, refusal{http.StatusBadRequest, "reading the body: " + err.Error()}
}

// postCar passes the request on to the API, as any client would send it.
func (v *View) postCar(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxCar)
	body, err := readAll(r)
	if err == nil {
		err = v.tour.state().free()
	}
	if err != nil {
		refuse(w, err)
		return
	}
	request, err := http.NewRequestWithContext(r.Context(), http.MethodPost, v.path.APIURL+domain.Path, bytes.NewReader(body))
	if err != nil {
		refuse(w, err)
		return
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := v.load.client.Do(request)
	if err != nil {
		refuse(w, refusal{http.StatusBadGateway, "the API does not answer: " + err.Error()})
		return
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, maxCar))
	if err != nil {
		refuse(w, refusal{http.StatusBadGateway, "the API's answer broke off: " + err.Error()})
		return
	}
	for _, name := range []string{"Traceresponse", "Location"} {
		if value := response.Header.Get(name); value != "" {
			w.Header().Set(name, value)
		}
	}
	w.Header().Set("Content-Type", "application/json") // every answer of the API is JSON
	w.WriteHeader(response.StatusCode)
	_, _ = w.Write(content)
}

func (v *View) postSwitch(r *http.Request) (any, error) {
	var body struct{ On *bool }
	if err := read(r, &body); err != nil {
		return nil, err
	}
	if body.On == nil {
		return nil, refusal{http.StatusBadRequest, `say {"on":true} or {"on":false}`}
	}
	if err := v.tour.state().free(); err != nil {
		return nil, err
	}
	return v.switches.set(r.Context(), r.PathValue("name"), *body.On)
}

func (v *View) postLoad(r *http.Request) (any, error) {
	var body struct{ Rate *int }
	if err := read(r, &body); err != nil {
		return nil, err
	}
	if body.Rate == nil || *body.Rate < 0 || *body.Rate > maxLoad {
		return nil, refusal{http.StatusBadRequest, fmt.Sprintf(`say {"rate":n} with n from 0 to %d`, maxLoad)}
	}
	if err := v.tour.state().free(); err != nil {
		return nil, err
	}
	v.load.set(*body.Rate)
	return map[string]int{"rate": *body.Rate}, nil
}

func (v *View) postTour(r *http.Request) (any, error) {
	n, _ := strconv.Atoi(r.PathValue("n")) // there is no experiment 0
	err := v.tour.start(n, r.URL.Query().Has("by-hand"))
	return v.tour.state(), err
}

// postRelay is what `make relay-stop` and `make relay-start` ask for. It answers what to tell the user.
func (v *View) postRelay(r *http.Request) (any, error) {
	switch r.PathValue("action") {
	case "stop":
		v.path.Relay.Stop(context.WithoutCancel(r.Context())) // also when the client has gone, because a relay must not stay half stopped
		return "relay stopped: commits wait in the WAL", nil
	case "start":
		return "relay started", v.path.Relay.Start()
	default:
		return nil, refusal{http.StatusNotFound, "say stop or start"}
	}
}
