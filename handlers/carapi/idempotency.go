package carapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/internal/failpoint"
	"rds-outbox-demo/internal/sabotage"
	"rds-outbox-demo/outbox"
)

const maxKeyBytes = 255

// requestKey is a request's Idempotency-Key, and what makes another request the same one.
type requestKey struct {
	route       string
	callerHash  []byte
	key         string
	requestHash []byte
	keep        time.Duration
}

// keyOf returns nil for a request without an Idempotency-Key. The key is taken as it is, quotes included.
func (a *api) keyOf(r *http.Request, body []byte) (*requestKey, error) {
	sent := r.Header.Values("Idempotency-Key")
	if len(sent) == 0 || sabotage.On(sabotage.KeysOff) {
		return nil, nil
	}
	key := sent[0]
	invisible := func(c rune) bool { return c < '!' || c > '~' }
	if len(sent) > 1 || key == "" || len(key) > maxKeyBytes || strings.ContainsFunc(key, invisible) {
		return nil, invalidHeader("Idempotency-Key", fmt.Sprintf("must be 1 to %d visible ASCII characters, once", maxKeyBytes))
	}
	caller := sha256.Sum256([]byte(a.caller(r)))
	request := sha256.New()
	// The path has no line end: its id was checked. So two requests never make one text.
	fmt.Fprintf(request, "%s %s\n%s\n", r.Method, r.URL.Path, strings.Join(r.Header.Values("If-Match"), ","))
	_, _ = request.Write(canonical(body))
	return &requestKey{route: r.Pattern, callerHash: caller[:], key: key, requestHash: request.Sum(nil), keep: a.keepKeys}, nil
}

// canonical returns equal JSON as equal bytes, whatever the order of its members, spaces and escapes are. A client that tries again
// may encode the body anew. What is not JSON stays as it is.
func canonical(body []byte) []byte {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber() // as float64, two long numbers could become one
	var value any
	if decoder.Decode(&value) != nil || decoder.Decode(new(any)) != io.EOF {
		return body
	}
	encoded, err := json.Marshal(value) // with sorted names
	if err != nil {
		return body
	}
	return encoded
}

// change makes one change of a car. It reads and locks through db, and adds what it writes last to batch. Its answer counts once
// the transaction has committed.
type change func(db dbgen.DBTX, batch *outbox.Batch) (answer, error)

// once makes a change in a transaction. With a key (nil: none) the transaction stores the answer, too, and a request whose key is
// stored gets that answer instead of a second change.
func (a *api) once(ctx context.Context, key *requestKey, do change) (ans answer, err error) {
	err = a.withConn(ctx, func(conn *pgxpool.Conn) error {
		ans, err = transact(ctx, conn, key, do)
		var violation *pgconn.PgError
		if errors.As(err, &violation) && violation.ConstraintName == "idempotency_pkey" {
			// Somebody stored the key without our lock: a release that numbers its locks in another way, for one. Our change is
			// rolled back, and the next look finds the answer.
			ans, err = transact(ctx, conn, key, do)
		}
		return err
	})
	return ans, err
}

func transact(ctx context.Context, conn *pgxpool.Conn, key *requestKey, do change) (ans answer, err error) {
	// READ COMMITTED whatever the server's default is. With one snapshot for the whole transaction, look would not see what was
	// committed after its first statement had begun and before it got the lock, and a car that has changed meanwhile would be an error.
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		if key != nil {
			stored, err := key.look(ctx, tx)
			if stored != nil {
				ans = *stored
			}
			if stored != nil || err != nil {
				return err
			}
		}
		batch := &outbox.Batch{}
		if ans, err = do(tx, batch); err != nil {
			return err
		}
		if key != nil {
			if err := key.store(ctx, batch, ans); err != nil {
				return err
			}
		}
		if err := batch.Send(ctx, tx); err != nil {
			return err
		}
		failpoint.Hit(failpoint.APIInTransaction)
		return nil
	})
	if err == nil && !ans.replayed {
		failpoint.Hit(failpoint.APIAfterCommit)
	}
	return ans, err
}

// look returns the stored answer, or nil when the change is ours to make: nobody else with this key is at it before tx has ended. Its
// errors are errInFlight and errKeyReused, and the database's.
func (k *requestKey) look(ctx context.Context, tx pgx.Tx) (*answer, error) {
	db := dbgen.New(tx)
	// Waiting for the twin would hold a connection for as long as the twin needs; a handful of retries could hold all of them.
	alone, err := db.IdempotencyLock(ctx, k.lockNumber())
	if err != nil {
		return nil, fmt.Errorf("locking an idempotency key: %w", err)
	}
	if !alone {
		return nil, errInFlight
	}
	// A statement of its own: one that also took the lock would look at the time before it, when the twin had not committed yet.
	row, err := db.IdempotencyGet(ctx, dbgen.IdempotencyGetParams{Route: k.route, CallerHash: k.callerHash, Key: k.key})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading an idempotency key: %w", err)
	case row.Expired:
		err := db.IdempotencyDelete(ctx, dbgen.IdempotencyDeleteParams{Route: k.route, CallerHash: k.callerHash, Key: k.key})
		if err != nil {
			return nil, fmt.Errorf("removing an idempotency key: %w", err)
		}
		return nil, nil
	case !bytes.Equal(row.RequestHash, k.requestHash):
		return nil, errKeyReused
	}
	stored := &answer{status: int(row.Status), location: row.Location, etag: row.Etag, replayed: true}
	if row.Body != "" {
		stored.body = json.RawMessage(row.Body)
	}
	return stored, nil
}

// lockNumber is the same for the same key. Two keys with one number would only see a twin in each other now and then.
func (k *requestKey) lockNumber() int64 {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%x\n%s", k.route, k.callerHash, k.key))
	return int64(binary.BigEndian.Uint64(sum[:]))
}

// store adds the answer to the statements of its change. Only a change that was made has one: what was refused may be sent again with
// the same key.
func (k *requestKey) store(ctx context.Context, batch *outbox.Batch, ans answer) error {
	body, err := encode(ans.body)
	if err != nil {
		return fmt.Errorf("encoding an answer: %w", err)
	}
	return dbgen.New(batch).IdempotencyInsert(ctx, dbgen.IdempotencyInsertParams{
		Route: k.route, CallerHash: k.callerHash, Key: k.key, RequestHash: k.requestHash,
		Status: int32(ans.status), Location: ans.location, Etag: ans.etag, Body: string(body), KeepSeconds: k.keep.Seconds(),
	})
}
