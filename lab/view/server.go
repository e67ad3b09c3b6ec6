package view

import (
	"bytes"
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

func (v *View) routes() (http.Handler, error) {
	index, err := template.ParseFS(page, "page/index.html")
	if err != nil {
		return nil, fmt.Errorf("reading the page: %w", err)
	}
	var front bytes.Buffer
	if err := index.Execute(&front, struct {
		Token  string
		Fields []domain.Field
	}{v.token, domain.Fields}); err != nil {
		return nil, fmt.Errorf("writing the page: %w", err)
	}
	described, err := template.ParseFS(page, "page/contracts.html")
	if err != nil {
		return nil, fmt.Errorf("reading the page of contracts: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentTypes[".html"])
		_, _ = w.Write(front.Bytes())
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
	mux.Handle("GET /contracts", v.getContracts(described))
	mux.HandleFunc("GET /events/{id}", v.getEvent)
	mux.HandleFunc("GET /events/{id}/where", v.getWhere)
	mux.HandleFunc("POST "+domain.Path, v.postCar)
	mux.HandleFunc("POST /switches/{name}", v.postSwitch)
	mux.HandleFunc("POST /load", v.postLoad)
	mux.HandleFunc("POST /tour/{n}", v.postTour)
	mux.HandleFunc("POST /tour/next", func(w http.ResponseWriter, _ *http.Request) {
		if err := v.tour.goOn(); err != nil {
			refuse(w, err)
			return
		}
		answer(w, http.StatusOK, v.tour.state())
	})
	mux.HandleFunc("DELETE /tour", func(w http.ResponseWriter, _ *http.Request) {
		v.tour.stop()
		answer(w, http.StatusOK, v.tour.state())
	})
	return mux, nil
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

func answerError(w http.ResponseWriter, status int, why string) {
	answer(w, status, map[string]string{"error": why})
}

// refuse answers an error with its status.
func refuse(w http.ResponseWriter, err error) {
	var notNow local.NotNowError
	switch {
	case errors.As(err, &notNow):
		answerError(w, http.StatusConflict, err.Error())
	case errors.Is(err, errNoSwitch), errors.Is(err, errNoExperiment):
		answerError(w, http.StatusNotFound, err.Error())
	default:
		answerError(w, http.StatusInternalServerError, err.Error())
	}
}

// read reads a body of JSON. It answers the request itself if the body is not JSON, and returns
// false.
func read(w http.ResponseWriter, r *http.Request, into any) bool {
	content, ok := readAll(w, r, maxCommand)
	if !ok {
		return false
	}
	if err := json.Unmarshal(content, into); err != nil {
		answerError(w, http.StatusBadRequest, "the body is not as expected: "+err.Error())
		return false
	}
	return true
}

func readAll(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, bool) {
	content, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		answerError(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than %d bytes", limit))
	case err != nil:
		answerError(w, http.StatusBadRequest, "reading the body: "+err.Error())
	}
	return content, err == nil
}

// postCar passes the request on to the API, as any client would send it.
func (v *View) postCar(w http.ResponseWriter, r *http.Request) {
	body, ok := readAll(w, r, maxCar)
	if !ok {
		return
	}
	if err := v.switches.heldBy(); err != nil { // an experiment counts cars
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
		answerError(w, http.StatusBadGateway, "the API does not answer: "+err.Error())
		return
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, maxCar))
	if err != nil {
		answerError(w, http.StatusBadGateway, "the API's answer broke off: "+err.Error())
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

func (v *View) postSwitch(w http.ResponseWriter, r *http.Request) {
	var body struct{ On *bool }
	if !read(w, r, &body) {
		return
	}
	if body.On == nil {
		answerError(w, http.StatusBadRequest, `say {"on":true} or {"on":false}`)
		return
	}
	state, err := v.switches.set(r.Context(), r.PathValue("name"), *body.On)
	if err != nil {
		refuse(w, err)
		return
	}
	answer(w, http.StatusOK, state)
}

func (v *View) postLoad(w http.ResponseWriter, r *http.Request) {
	var body struct{ Rate *int }
	if !read(w, r, &body) {
		return
	}
	if body.Rate == nil || *body.Rate < 0 || *body.Rate > maxLoad {
		answerError(w, http.StatusBadRequest, fmt.Sprintf(`say {"rate":n} with n from 0 to %d`, maxLoad))
		return
	}
	if err := v.switches.heldBy(); err != nil {
		refuse(w, err)
		return
	}
	v.load.set(*body.Rate)
	answer(w, http.StatusOK, map[string]int{"rate": *body.Rate})
}

func (v *View) postTour(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.PathValue("n"))
	if err != nil {
		refuse(w, errNoExperiment)
		return
	}
	if err := v.tour.start(n, r.URL.Query().Has("by-hand")); err != nil {
		refuse(w, err)
		return
	}
	answer(w, http.StatusOK, v.tour.state())
}
