package docs_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

// logLines are the first lines of the request, of a PutRecords call and of a batch.
func (r *recordRun) logLines(t *testing.T) []byte {
	var lines []json.RawMessage
	for _, message := range []string{"request", "put", "batch"} {
		var line []byte
		pattern := regexp.MustCompile(`(?m)^.*"msg":"` + message + `".*$`)
		labtest.Eventually(t, "the line "+message, func() bool {
			r.log.mu.Lock()
			defer r.log.mu.Unlock()
			line = bytes.Clone(pattern.Find(r.log.text.Bytes()))
			return line != nil
		})
		lines = append(lines, line)
	}
	return recordJSON(t, lines)
}

// sameData replaces the data in v, which is in base64, by the record that the page shows, and the record's size.
func (r *recordRun) sameData(t *testing.T, v any) []byte {
	text, ok := v.([]byte)
	if !ok {
		text = recordJSON(t, v)
	}
	record, err := os.ReadFile(filepath.Join(recordFolder, "4-walrelay.json"))
	require.NoError(t, err)
	var line bytes.Buffer
	require.NoError(t, json.Compact(&line, record))
	text = regexp.MustCompile(`"data":"[^"]*"`).ReplaceAll(text, []byte(`"data":"`+base64.StdEncoding.EncodeToString(line.Bytes())+`"`))
	return regexp.MustCompile(`"size":\d+`).ReplaceAll(text, fmt.Appendf(nil, `"size":%d`, line.Len()))
}

// recordVolatile are members whose values differ from run to run, and what stands in the files instead.
var recordVolatile = map[string]string{
	"transaction-id": `1139`, "stream-position": `"00000002/7C007178.1.00000002/7C007178"`, "duration_ms": `3`,
	"approximateArrivalTimestamp": `1795425300.125`, "Time": `1795425300.123`, "Timestamp": `1795425300123`, "SlotName": `"outbox_relay"`, "StreamName": `"rds-outbox-demo-dev-outbox"`,
	"time": `"2026-11-23T09:15:00Z"`, "commit_to_bus_seconds": `[0.143]`,
	"id": `"` + recordDelivery + `"`, "messageId": `"19dd0b57-b21e-4ac1-bd88-01bbb068cb78"`, "receiptHandle": `"MessageReceiptHandle"`, "md5OfBody": `"7b270e59b47ff90a553787216d55d91d"`,
	"requestId":                        `"c9b8fa9f-5a7f-4d2b-af9c-0c604cde93a5"`,
	"SentTimestamp":                    `"1795425300300"`,
	"ApproximateFirstReceiveTimestamp": `"1795425300301"`,
}

var (
	recordTime    = regexp.MustCompile(`\d{4}-\d\d-\d\d([T ])\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00|\+00)`) // zeros at the end may be missing
	recordNumbers = regexp.MustCompile(`\b\d{56}\b`)
)

// fixed replaces what every run makes anew.
func (r *recordRun) fixed(s string) string {
	s = strings.NewReplacer(r.id, recordCar, r.event, recordEvent).Replace(s)
	s = recordTime.ReplaceAllString(s, "2026-11-23${1}09:15:00.123456${3}")
	return recordNumbers.ReplaceAllString(s, recordSequence)
}

func (r *recordRun) compare(t *testing.T, file string, got []byte) {
	t.Helper()
	text := r.fixed(string(got))
	if strings.HasSuffix(file, ".json") {
		var pretty bytes.Buffer
		require.NoError(t, json.Indent(&pretty, []byte(strings.TrimSpace(text)), "", "  "))
		text = pretty.String() + "\n"
		if file == "5-discarded.json" {
			text = strings.ReplaceAll(text, ".123456Z", ".125Z") // Lambda's have milliseconds
		}
		for member, value := range recordVolatile {
			if member == "id" && file != "6-target.json" {
				continue
			}
			pattern := regexp.MustCompile(`(?s)("` + member + `": )("[^"]*"|[\d.]+|\[[\d.,\s]*\])`)
			text = pattern.ReplaceAllString(text, "${1}"+strings.ReplaceAll(value, "$", "$$"))
		}
		text = regexp.MustCompile(`(\\"id\\":\\")[0-9a-f-]{36}`).ReplaceAllString(text, "${1}"+recordDelivery)
		text = regexp.MustCompile(`(\\"time\\":\\")[^\\]*`).ReplaceAllString(text, "${1}2026-11-23T09:15:00Z")
	}
	path := filepath.Join(recordFolder, file)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), text, "%s: UPDATE_GOLDEN=1 writes it anew; then see what docs/record-format.md says of it", file)
}

func recordJSON(t *testing.T, v any) []byte {
	t.Helper()
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	require.NoError(t, encoder.Encode(v))
	return out.Bytes()
}

// recordBackground runs f until the test ends, and waits for it.
func recordBackground(t *testing.T, f func(context.Context)) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

func recordReceive(t *testing.T, c <-chan []byte) []byte {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(labtest.Patience):
		require.FailNow(t, "nothing came")
		return nil
	}
}

// recordLog keeps the log lines of the whole run.
type recordLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *recordLog) logger() *slog.Logger { return slog.New(slog.NewJSONHandler(l, nil)) }

func (l *recordLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// recordWire keeps the first entry of the first PutEvents call, as it goes over the wire.
type recordWire struct {
	mu    sync.Mutex
	first []byte
}

func (w *recordWire) Do(request *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return nil, err
	}
	request.Body = io.NopCloser(bytes.NewReader(body))
	var call struct{ Entries []json.RawMessage }
	if json.Unmarshal(body, &call) == nil && len(call.Entries) > 0 {
		w.mu.Lock()
		if w.first == nil {
			w.first = call.Entries[0]
		}
		w.mu.Unlock()
	}
	return http.DefaultClient.Do(request)
}
