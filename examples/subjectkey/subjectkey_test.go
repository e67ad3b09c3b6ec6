package subjectkey_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"rds-outbox-demo/examples/subjectkey"
	"rds-outbox-demo/inbox"
	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/outbox"
)

const payload = `{"name": "Ada Lovelace"}`

func TestASealedEventOpensAtTheSubscriber(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "master.key")
	for name, master := range map[string]subjectkey.Master{"File": open(t, file), "KMS": fakeKMS(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDB(t)
			first, second := appended(t, db, master, "1", 1), appended(t, db, master, "1", 2)
			other := appended(t, db, master, "2", 1)
			require.NotContains(t, string(first.Data), "Ada")
			got, err := subjectkey.Open(t.Context(), db.Pool, master, first)
			require.NoError(t, err)
			require.Equal(t, payload, string(got))

			// A ciphertext of another event or another subject does not open.
			for name, stolen := range map[string]inbox.Event{"Event": second, "Subject": other} {
				stolen.Data = first.Data
				_, err = subjectkey.Open(t.Context(), db.Pool, master, stolen)
				require.ErrorContains(t, err, "authentication failed", name)
			}
			_, err = db.Pool.Exec(t.Context(), "UPDATE subject_key SET wrapped = (SELECT wrapped FROM subject_key WHERE subject = 'Customer/1')")
			require.NoError(t, err)
			_, err = subjectkey.Open(t.Context(), db.Pool, master, other)
			require.ErrorContains(t, err, "unwrapping the key of the aggregate")
		})
	}
}

// A subscriber counts customers, and erasing one of them must not stop it, or make it count twice.
func TestAnErasedSubjectIsRecognisedAndUnreadable(t *testing.T) {
	t.Parallel()
	db := newDB(t)
	master := open(t, filepath.Join(t.TempDir(), "master.key"))
	events := []inbox.Event{appended(t, db, master, "1", 1), appended(t, db, master, "2", 1), appended(t, db, master, "1", 2), appended(t, db, master, "1", 3)}
	deliver := func(e inbox.Event) (said string) {
		require.NoError(t, pgx.BeginFunc(t.Context(), db.Pool, func(tx pgx.Tx) error {
			verdict, err := inbox.Once(t.Context(), tx, inbox.Subscriber{Name: "customers"}, e, func(context.Context, inbox.Verdict) error {
				_, err := subjectkey.Open(t.Context(), tx, master, e)
				if errors.Is(err, subjectkey.ErrErased) {
					said = "unreadable "
					return nil
				}
				return err
			})
			said += string(verdict)
			return err
		}))
		return said
	}
	require.Equal(t, "new", deliver(events[0]))
	require.NoError(t, subjectkey.Erase(t.Context(), db.Pool, "Customer", "1"))
	require.Equal(t, "new", deliver(events[1]), "the other subject's")
	require.Equal(t, "duplicate", deliver(events[0]))
	require.Equal(t, "unreadable gap", deliver(events[3]))
	require.Equal(t, "unreadable late", deliver(events[2]))

	// The erased key is not replaced. Events without personal data, such as CustomerErased, still
	// work.
	erased := customer(t, "1", 4)
	_, err := subjectkey.Seal(t.Context(), db.Pool, master, erased)
	require.ErrorIs(t, err, subjectkey.ErrErased)
	require.NoError(t, outbox.Append(t.Context(), db.Pool, erased))
	require.NoError(t, subjectkey.Erase(t.Context(), db.Pool, "Customer", "never seen"))
	_, err = subjectkey.Seal(t.Context(), db.Pool, master, customer(t, "never seen", 1))
	require.ErrorIs(t, err, subjectkey.ErrErased)
}

// The key is committed with the event that needs it, and two first events at the same time get one
// key.
func TestTheKeyIsThereWhenTheEventIs(t *testing.T) {
	t.Parallel()
	db := newDB(t)
	master := open(t, filepath.Join(t.TempDir(), "master.key"))
	tx, err := db.Pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = subjectkey.Seal(t.Context(), tx, master, customer(t, "1", 1))
	require.NoError(t, err)
	require.NoError(t, tx.Rollback(t.Context()))
	sealed := make([]outbox.Event, 4)
	group, ctx := errgroup.WithContext(t.Context())
	for i := range sealed {
		event := customer(t, "1", int64(i+1))
		group.Go(func() (err error) {
			sealed[i], err = subjectkey.Seal(ctx, db.Pool, master, event)
			return err
		})
	}
	require.NoError(t, group.Wait())
	for _, e := range sealed {
		_, err := subjectkey.Open(t.Context(), db.Pool, master, received(e))
		require.NoError(t, err)
	}
}

// base64 makes a payload a third longer, so 44 KiB is about the longest.
func TestASealedPayloadHasTheLimitOfOutbox(t *testing.T) {
	t.Parallel()
	db := newDB(t)
	master := open(t, filepath.Join(t.TempDir(), "master.key"))
	for size, fits := range map[int]bool{44 << 10: true, 46 << 10: false} {
		event := customer(t, "1", int64(size))
		event.Data = []byte(`{"text":"` + strings.Repeat("x", size-len(`{"text":""}`)) + `"}`)
		event, err := subjectkey.Seal(t.Context(), db.Pool, master, event)
		require.NoError(t, err)
		err = outbox.Append(t.Context(), db.Pool, event)
		var tooLarge *outbox.InvalidEventError
		require.Equal(t, !fits, errors.As(err, &tooLarge), "%d bytes: %v", size, err)
	}
}

func newDB(t *testing.T) *pgtest.DB {
	t.Helper()
	db := pgtest.New(t)
	_, err := db.Pool.Exec(t.Context(), subjectkey.Schema)
	require.NoError(t, err)
	return db
}

func open(t *testing.T, file string) subjectkey.File {
	t.Helper()
	_, err := subjectkey.OpenFile(file) // makes it
	require.NoError(t, err)
	master, err := subjectkey.OpenFile(file)
	require.NoError(t, err)
	return master
}

// fakeKMS is the SDK's client, and a server that gives back what it was given if the key and the context are the same.
func fakeKMS(t *testing.T) subjectkey.KMS {
	t.Helper()
	type request struct {
		KeyID             string `json:"KeyId"`
		Plaintext         []byte `json:",omitempty"`
		CiphertextBlob    []byte `json:",omitempty"`
		EncryptionContext map[string]string
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in, was request
		_ = json.NewDecoder(r.Body).Decode(&in)
		if strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".Encrypt") {
			blob, _ := json.Marshal(in)
			_ = json.NewEncoder(w).Encode(map[string]any{"CiphertextBlob": blob})
			return
		}
		_ = json.Unmarshal(in.CiphertextBlob, &was)
		if was.KeyID != in.KeyID || was.EncryptionContext["subject"] != in.EncryptionContext["subject"] {
			w.Header().Set("X-Amzn-ErrorType", "InvalidCiphertextException")
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"Plaintext": was.Plaintext})
	}))
	t.Cleanup(server.Close)
	return subjectkey.KMS{KeyID: "alias/subjects", Client: kms.New(kms.Options{Region: "eu-central-1", BaseEndpoint: aws.String(server.URL),
		Credentials: credentials.NewStaticCredentialsProvider("test", "test", "")})}
}

func customer(t *testing.T, id string, version int64) outbox.Event {
	t.Helper()
	eventID, err := uuid.NewV7()
	require.NoError(t, err)
	return outbox.Event{ID: eventID, AggregateType: "Customer", AggregateID: id, AggregateVersion: version, Type: "CustomerChanged", Data: json.RawMessage(payload)}
}

// appended seals an event, writes it, and returns it as a subscriber gets it.
func appended(t *testing.T, db *pgtest.DB, master subjectkey.Master, id string, version int64) inbox.Event {
	t.Helper()
	var event outbox.Event
	require.NoError(t, pgx.BeginFunc(t.Context(), db.Pool, func(tx pgx.Tx) (err error) {
		if event, err = subjectkey.Seal(t.Context(), tx, master, customer(t, id, version)); err != nil {
			return err
		}
		return outbox.Append(t.Context(), tx, event)
	}))
	require.NoError(t, db.Pool.QueryRow(t.Context(), "SELECT event_data FROM outbox WHERE id = $1", event.ID).Scan(&event.Data))
	return received(event)
}

func received(e outbox.Event) inbox.Event {
	return inbox.Event{ID: e.ID, AggregateType: e.AggregateType, AggregateID: e.AggregateID, Version: e.AggregateVersion, Type: e.Type, Data: e.Data}
}
