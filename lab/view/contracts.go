package view

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"rds-outbox-demo/contracts"
	"rds-outbox-demo/lab/domain"
)

// contractsPage is what page/contracts.html shows, which are the promises of the API and of the
// events.
type contractsPage struct {
	APIURL string
	Routes []route
	Bus    string
	Events []eventContract
}

type route struct{ Method, Path, Summary, Description string }

type eventContract struct {
	Type, Source, Summary string
	Members               []eventMember // of eventData
	Example               string        // the whole event, as JSON
}

type eventMember struct{ Name, Type, Description string }

// getContracts is GET /contracts. It reads the API's own openapi.json, so that it shows what the
// API serves and not what was built into the view.
func (v *View) getContracts(w http.ResponseWriter, r *http.Request) {
	content := contractsPage{APIURL: v.path.APIURL}
	var err error
	if content.Routes, err = readRoutes(r.Context(), v.path.APIURL+"/openapi.json"); err != nil {
		http.Error(w, "The API does not describe itself at the moment. Load this page again when it is up.", http.StatusBadGateway)
		v.log.Warn("live view: the page of contracts", "error", err.Error())
		return
	}
	if content.Bus, content.Events, err = readEvents(contracts.AsyncAPI); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	show(w, "contracts.html", content)
}

// methods are in the page's order.
var methods = []string{"get", "post", "patch", "put", "delete"}

// readRoutes returns the routes of an OpenAPI document.
func readRoutes(ctx context.Context, url string) ([]route, error) {
	_, text, err := domain.Send(ctx, http.DefaultClient, http.MethodGet, url, "")
	if err != nil {
		return nil, err
	}
	var document struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal(text, &document); err != nil {
		return nil, fmt.Errorf("reading %s: %w", url, err)
	}
	var routes []route
	for path, item := range document.Paths {
		for method, operation := range item {
			if !slices.Contains(methods, method) {
				continue // such as parameters
			}
			one := route{Method: strings.ToUpper(method), Path: path}
			if err := json.Unmarshal(operation, &one); err != nil {
				return nil, fmt.Errorf("reading %s %s of %s: %w", method, path, url, err)
			}
			routes = append(routes, one)
		}
	}
	rank := func(r route) int { return slices.Index(methods, strings.ToLower(r.Method)) }
	slices.SortFunc(routes, func(a, b route) int { return cmp.Or(strings.Compare(a.Path, b.Path), cmp.Compare(rank(a), rank(b))) })
	return routes, nil
}

// readEvents returns the name of the bus and the events on it, of an AsyncAPI document.
func readEvents(text []byte) (bus string, events []eventContract, err error) {
	var document struct {
		Channels map[string]struct {
			Address string `yaml:"address"`
		} `yaml:"channels"`
		Components struct {
			Messages map[string]struct {
				Summary  string `yaml:"summary"`
				Bindings struct {
					EventBridge struct {
						Source     string `yaml:"source"`
						DetailType string `yaml:"detailType"`
					} `yaml:"x-eventbridge"`
				} `yaml:"bindings"`
				Payload struct {
					Properties struct {
						Detail struct {
							Properties struct {
								EventData struct {
									Properties yaml.Node `yaml:"properties"` // in its order
								} `yaml:"eventData"`
							} `yaml:"properties"`
						} `yaml:"detail"`
					} `yaml:"properties"`
				} `yaml:"payload"`
				Examples []struct {
					Payload map[string]any `yaml:"payload"`
				} `yaml:"examples"`
			} `yaml:"messages"`
		} `yaml:"components"`
	}
	if err := yaml.Unmarshal(text, &document); err != nil {
		return "", nil, fmt.Errorf("reading asyncapi.yaml: %w", err)
	}
	for _, m := range document.Components.Messages {
		e := eventContract{Type: m.Bindings.EventBridge.DetailType, Source: m.Bindings.EventBridge.Source, Summary: m.Summary}
		members := m.Payload.Properties.Detail.Properties.EventData.Properties.Content
		for i := 0; i+1 < len(members); i += 2 {
			var about struct {
				Type        any    `yaml:"type"`
				Format      string `yaml:"format"`
				Description string `yaml:"description"`
			}
			if err := members[i+1].Decode(&about); err != nil {
				return "", nil, fmt.Errorf("reading asyncapi.yaml: %s: %w", members[i].Value, err)
			}
			kind := strings.Trim(fmt.Sprint(about.Type), "[]")
			e.Members = append(e.Members, eventMember{members[i].Value, strings.ReplaceAll(cmp.Or(about.Format, kind), " ", " or "), about.Description})
		}
		for _, one := range m.Examples {
			example, err := json.MarshalIndent(one.Payload, "", "  ")
			if err != nil {
				return "", nil, fmt.Errorf("writing the example of %s: %w", e.Type, err)
			}
			e.Example = string(example)
		}
		events = append(events, e)
	}
	slices.SortFunc(events, func(a, b eventContract) int { return strings.Compare(a.Type, b.Type) })
	return document.Channels["bus"].Address, events, nil
}
