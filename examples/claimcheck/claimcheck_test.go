package claimcheck_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/examples/claimcheck"
	"rds-outbox-demo/inbox"
	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/outbox"
)

func TestAPayloadOfAnySizeReachesTheSubscriber(t *testing.T) {
	t.Parallel()
	for name, store := range map[string]claimcheck.Store{"Folder": folder(t), "S3": bucket(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			payload := bytes.Repeat([]byte("0123456789abcdef"), 4*outbox.MaxDataBytes/16)
			event := invoice(t, "1")
			event.Data = payload
			var tooLarge *outbox.InvalidEventError
			require.ErrorAs(t, outbox.Append(t.Context(), db.Pool, event), &tooLarge)

			event, err := claimcheck.CheckIn(t.Context(), store, event, payload)
			require.NoError(t, err)
			require.NoError(t, outbox.Append(t.Context(), db.Pool, event))
			received := receive(t, db, event.ID)
			require.Less(t, len(received.Data), 300)
			got, err := claimcheck.Payload(t.Context(), store, received)
			require.NoError(t, err)
			require.Equal(t, payload, got)

			// First somebody replaces the object, and then it is deleted.
			var data claimcheck.Data
			require.NoError(t, json.Unmarshal(received.Data, &data))
			require.NoError(t, store.Put(t.Context(), data.Claim.Key, []byte("something else")))
			_, err = claimcheck.Payload(t.Context(), store, received)
			require.ErrorContains(t, err, "is not its payload")
			received.Data = bytes.Replace(received.Data, []byte("claims/"), []byte("gone/"), 1)
			_, err = claimcheck.Payload(t.Context(), store, received)
			require.ErrorContains(t, err, "fetching the payload of event "+event.ID.String())
		})
	}
}

// The object is durable before the transaction commits. So a crash in between leaves an orphan
// object, and never an event without its payload.
func TestTheObjectComesBeforeTheCommit(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	store := folder(t)
	event, err := claimcheck.CheckIn(t.Context(), store, invoice(t, "1"), []byte("payload"))
	require.NoError(t, err)
	tx, err := db.Pool.Begin(t.Context())
	require.NoError(t, err)
	require.NoError(t, outbox.Append(t.Context(), tx, event))
	orphan := inbox.Event{ID: event.ID, Data: event.Data}
	got, err := claimcheck.Payload(t.Context(), store, orphan)
	require.NoError(t, err, "it is there while the transaction is open")
	require.Equal(t, "payload", string(got))
	require.NoError(t, tx.Rollback(t.Context()))
	require.Zero(t, rows(t, db))

	// The next try succeeds beside the orphan, also with another payload under the same event id.
	again, err := claimcheck.CheckIn(t.Context(), store, event, []byte("another payload"))
	require.NoError(t, err)
	require.NoError(t, outbox.Append(t.Context(), db.Pool, again))
	got, err = claimcheck.Payload(t.Context(), store, receive(t, db, event.ID))
	require.NoError(t, err)
	require.Equal(t, "another payload", string(got))
	got, err = claimcheck.Payload(t.Context(), store, orphan)
	require.NoError(t, err)
	require.Equal(t, "payload", string(got), "a first try that had committed after all would keep its payload")
}

func TestWithoutItsObjectAnEventIsNotWritten(t *testing.T) {
	t.Parallel()
	event := invoice(t, "1")
	got, err := claimcheck.CheckIn(t.Context(), full{}, event, []byte("payload"))
	require.ErrorContains(t, err, "disk full")
	require.Equal(t, event, got)
	require.Error(t, outbox.Append(t.Context(), nil, got), "an event without Data is refused before the database sees it")
}

// An event that cannot get its payload stays unprocessed, so its message comes again.
func TestASubscriberProcessesThePayloadOnce(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	store := folder(t)
	event, err := claimcheck.CheckIn(t.Context(), store, invoice(t, "1"), []byte("payload"))
	require.NoError(t, err)
	require.NoError(t, outbox.Append(t.Context(), db.Pool, event))
	received := receive(t, db, event.ID)
	var processed []string
	process := func(store claimcheck.Store) error {
		payload, err := claimcheck.Payload(t.Context(), store, received)
		if err != nil {
			return err
		}
		return pgx.BeginFunc(t.Context(), db.Pool, func(tx pgx.Tx) error {
			_, err := inbox.Once(t.Context(), tx, inbox.Subscriber{Name: "archive"}, received, func(context.Context, inbox.Verdict) error {
				processed = append(processed, string(payload))
				return nil
			})
			return err
		})
	}
	require.Error(t, process(full{}))
	require.NoError(t, process(store))
	require.NoError(t, process(store))
	require.Equal(t, []string{"payload"}, processed)
}

// The key comes from the bus, so it may be anything.
func TestAKeyLeadsNowhereElse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(dir+"/secret", []byte("secret"), 0o600))
	require.NoError(t, os.Mkdir(dir+"/objects", 0o700))
	root, err := os.OpenRoot(dir + "/objects")
	require.NoError(t, err)
	t.Cleanup(func() { _ = root.Close() })
	_, err = claimcheck.Folder{Root: root}.Get(t.Context(), "../secret")
	require.ErrorContains(t, err, "escapes")
}

type full struct{}

func (full) Put(context.Context, string, []byte) error   { return errors.New("disk full") }
func (full) Get(context.Context, string) ([]byte, error) { return nil, errors.New("disk broken") }

func folder(t *testing.T) claimcheck.Folder {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { _ = root.Close() })
	return claimcheck.Folder{Root: root}
}

// bucket is the SDK's client, and a server that keeps what it puts.
func bucket(t *testing.T) claimcheck.S3 {
	t.Helper()
	var objects sync.Map
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch found, ok := objects.Load(r.URL.Path); {
		case r.Method == http.MethodPut:
			data, err := io.ReadAll(r.Body)
			if err != nil {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			objects.Store(r.URL.Path, data)
		case ok:
			_, _ = w.Write(found.([]byte))
		default:
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, "<Error><Code>NoSuchKey</Code></Error>")
		}
	}))
	t.Cleanup(server.Close)
	client := s3.New(s3.Options{Region: "eu-central-1", BaseEndpoint: aws.String(server.URL), UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""), RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired})
	return claimcheck.S3{Client: client, Bucket: "payloads"}
}

func invoice(t *testing.T, id string) outbox.Event {
	t.Helper()
	eventID, err := uuid.NewV7()
	require.NoError(t, err)
	return outbox.Event{ID: eventID, AggregateType: "Invoice", AggregateID: id, AggregateVersion: 1, Type: "InvoicePrinted"}
}

// receive returns the event in the form in which a subscriber gets it.
func receive(t *testing.T, db *pgtest.DB, id uuid.UUID) inbox.Event {
	t.Helper()
	e := inbox.Event{ID: id}
	require.NoError(t, db.Pool.QueryRow(t.Context(), "SELECT aggregate_type, aggregate_id, aggregate_version, event_type, event_data FROM outbox WHERE id = $1", id).
		Scan(&e.AggregateType, &e.AggregateID, &e.Version, &e.Type, &e.Data))
	return e
}

func rows(t *testing.T, db *pgtest.DB) (n int) {
	t.Helper()
	require.NoError(t, db.Pool.QueryRow(t.Context(), "SELECT count(*) FROM outbox").Scan(&n))
	return n
}
