package carapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
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

// requestKey is a request's Idempotency-Key, with the members that another request must share to
// count as the same request.
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
	// The path has no line end, because its id was checked. So two different requests never make
	// the same text.
	fmt.Fprintf(request, "%s %s\n%s\n", r.Method, r.URL.Path, strings.Join(r.Header.Values("If-Match"), ","))
	_, _ = request.Write(canonical(body))
	return &requestKey{route: r.Pattern, callerHash: caller[:], key: key, requestHash: request.Sum(nil), keep: a.keepKeys}, nil
}

// canonical returns equal JSON as equal bytes, whatever its order of members, spaces and escapes. A
// client that tries again may encode the body anew. A body that is not JSON stays as it is.
func canonical(body []byte) []byte {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber() // as float64, two long numbers could become one
	var value any
	if decoder.Decode(&value) != nil || len(bytes.Trim(body[decoder.InputOffset():], " \t\r\n")) > 0 {
		return body
	}
	encoded, err := json.Marshal(value) // with sorted names
	if err != nil {
		return body
	}
	return encoded
}

// change makes one change of a car. It reads and locks through db, and adds its last statements to
// batch. Its answer is valid only after the transaction has committed.
type change func(db dbgen.DBTX, batch *outbox.Batch) (answer, error)

// inTransaction makes a change in a transaction. key may be nil. With a key the transaction also stores the
// answer, and a request whose key is stored gets that answer instead of a second change.
func (a *api) inTransaction(ctx context.Context, key *requestKey, do change) (ans answer, err error) {
	err = a.withConn(ctx, func(conn *pgxpool.Conn) error {
		ans, err = transact(ctx, conn, key, do)
		if violation, ok := errors.AsType[*pgconn.PgError](err); ok && violation.ConstraintName == "idempotency_pkey" {
			// Another process stored the key without our lock, for example a release that numbers its
			// locks in another way. Our change is rolled back, and the next look finds the answer.
			ans, err = transact(ctx, conn, key, do)
		}
		return err
	})
	return ans, err
}

func transact(ctx context.Context, conn *pgxpool.Conn, key *requestKey, do change) (ans answer, err error) {
	// READ COMMITTED whatever the server's default is. With one snapshot for the whole transaction,
	// look would not see an answer that was committed after its first statement began and before it
	// got the lock. A car that has changed meanwhile would be an error.
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
			if err := key.store(ctx, batch, &ans); err != nil {
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

// look returns the stored answer, or nil if this request has to make the change. It then holds the
// key's lock until tx ends. Its errors are errInFlight, errKeyReused and the database's.
func (k *requestKey) look(ctx context.Context, tx pgx.Tx) (*answer, error) {
	db := dbgen.New(tx)
	// Do not wait for another request with the same key. The wait would hold a connection for as long
	// as the other request needs, and a handful of retries could hold all connections.
	alone, err := db.IdempotencyLock(ctx, k.lockNumber())
	if err != nil {
		return nil, fmt.Errorf("locking an idempotency key: %w", err)
	}
	if !alone {
		return nil, errInFlight
	}
	// This is a statement of its own. A statement that also took the lock would read with a snapshot
	// from before the lock, when the other request had not committed yet.
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

// lockNumber returns the same number for the same key. If two keys have the same number, the only
// effect is that one sometimes takes the other for a request in flight.
func (k *requestKey) lockNumber() int64 {
	sum := sha256.Sum256([]byte(k.route + "\n" + hex.EncodeToString(k.callerHash) + "\n" + k.key))
	return int64(binary.BigEndian.Uint64(sum[:]))
}

// store adds the answer to the statements of its change, and leaves the answer's body encoded. Only the
// answer to a change that was made is stored, because a refused request may be sent again with the same
// key.
func (k *requestKey) store(ctx context.Context, batch *outbox.Batch, ans *answer) error {
	body, err := encode(ans.body)
	if err != nil {
		return fmt.Errorf("encoding an answer: %w", err)
	}
	ans.body = json.RawMessage(body)
	return dbgen.New(batch).IdempotencyInsert(ctx, dbgen.IdempotencyInsertParams{
		Route: k.route, CallerHash: k.callerHash, Key: k.key, RequestHash: k.requestHash,
		Status: int32(ans.status), Location: ans.location, Etag: ans.etag, Body: string(body), KeepSeconds: k.keep.Seconds(),
	})
}
