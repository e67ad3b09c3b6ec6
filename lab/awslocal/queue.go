package awslocal

import (
	"crypto/md5" // SQS answers with the sum of a body
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

const (
	queueRetention    = 14 * 24 * time.Hour // SQS's longest
	compactionAtLeast = 1 << 20             // bytes of deleted messages that make a file worth rewriting
)

// queue is a durable standard queue. Its file has a line for each message sent and a line for each
// message deleted. Memory has a few words per message, and bodies stay on disk. Visibility and
// receive counts do not survive a restart. Every message is visible then, which at-least-once
// delivery allows.
type queue struct {
	name    string
	path    string
	created time.Time
	now     func() time.Time

	mu       sync.Mutex
	log      *appendLog
	live     int64 // bytes of the lines of messages that are not deleted
	messages []*message
	byID     map[string]*message
	sent     chan struct{} // closed when a message arrives

	dead       *queue // gets messages that were received maxReceive times. If it is nil they stay
	maxReceive int
}

type message struct {
	id            string
	offset        int64
	length        int
	sent          int64 // Unix milliseconds, as the others
	visible       int64
	received      int
	firstReceived int64
}

// queueLine is a line of the file. It has one of the two.
type queueLine struct {
	Send   *sentMessage `json:"send,omitempty"`
	Delete string       `json:"delete,omitempty"` // message id
}

type sentMessage struct {
	ID         string                     `json:"id"`
	Sent       int64                      `json:"sent"`
	Visible    int64                      `json:"visible"`
	Body       string                     `json:"body"`
	Attributes map[string]json.RawMessage `json:"attributes,omitempty"`
}

func openQueue(path, name string, now func() time.Time) (*queue, error) {
	q := &queue{name: name, path: path, created: now(), now: now, byID: map[string]*message{}, sent: make(chan struct{})}
	var err error
	q.log, err = openLines(path, q.apply)
	if err != nil {
		return nil, fmt.Errorf("opening queue %s: %w", name, err)
	}
	return q, nil
}

// apply takes a line that is in the file into account.
func (q *queue) apply(line []byte, offset int64) error {
	var l queueLine
	if err := json.Unmarshal(line, &l); err != nil {
		return fmt.Errorf("reading %s at byte %d: %w", q.path, offset, err)
	}
	if l.Send != nil {
		m := &message{id: l.Send.ID, offset: offset, length: len(line), sent: l.Send.Sent, visible: l.Send.Visible}
		q.messages, q.byID[m.id] = append(q.messages, m), m
		q.live += int64(m.length)
		return nil
	}
	q.forget(l.Delete)
	return nil
}

func (q *queue) forget(id string) {
	if m, ok := q.byID[id]; ok {
		delete(q.byID, id)
		q.live -= int64(m.length)
	}
}

func (q *queue) write(l queueLine) error {
	line, err := json.Marshal(l)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	offset := q.log.size
	if err := q.log.append(line); err != nil {
		return err
	}
	return q.apply(line, offset)
}

func (q *queue) send(body string, attributes map[string]json.RawMessage, delay time.Duration) (id string, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now()
	m := &sentMessage{ID: uuid.NewString(), Sent: now.UnixMilli(), Visible: now.Add(delay).UnixMilli(), Body: body, Attributes: attributes}
	if err := q.write(queueLine{Send: m}); err != nil {
		return "", err
	}
	q.wake()
	return m.ID, nil
}

// wake lets those look who wait for a message.
func (q *queue) wake() {
	close(q.sent)
	q.sent = make(chan struct{})
}

// received is a message as ReceiveMessage gives it.
type received struct {
	sentMessage
	handle        string
	count         int
	firstReceived int64
}

// receive takes up to limit visible messages, oldest first, and hides them for the given time. If
// there is no message, it returns when to look again, which is when sent is closed, or after wait
// if wait is not 0.
func (q *queue) receive(limit int, hide time.Duration) (all []received, sent <-chan struct{}, wait time.Duration, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now()
	if len(q.messages) > len(q.byID)+1000 { // not each time, because a batch must not walk a long queue
		q.messages = slices.DeleteFunc(q.messages, func(m *message) bool { return q.byID[m.id] == nil })
	}
	soonest := int64(math.MaxInt64)
	for _, m := range q.messages {
		if len(all) == limit || err != nil {
			break
		}
		switch {
		case q.byID[m.id] == nil: // deleted
		case m.sent < now.Add(-queueRetention).UnixMilli():
			q.forget(m.id)
		case m.visible > now.UnixMilli():
			soonest = min(soonest, m.visible)
		case q.dead != nil && m.received >= q.maxReceive:
			err = q.bury(m)
		default:
			var r received
			if r, err = q.take(m, now, hide); err == nil {
				all = append(all, r)
			}
		}
	}
	if soonest < math.MaxInt64 {
		wait = time.Duration(soonest-now.UnixMilli()) * time.Millisecond
	}
	return all, q.sent, wait, err
}

// read returns a message as it was sent.
func (q *queue) read(m *message) (*sentMessage, error) {
	line := make([]byte, m.length)
	if _, err := q.log.ReadAt(line, m.offset); err != nil {
		return nil, fmt.Errorf("reading queue %s: %w", q.name, err)
	}
	var l queueLine
	if err := json.Unmarshal(line, &l); err != nil || l.Send == nil || l.Send.ID != m.id {
		return nil, fmt.Errorf("reading queue %s at byte %d: message %s is not there", q.name, m.offset, m.id)
	}
	return l.Send, nil
}

func (q *queue) take(m *message, now time.Time, hide time.Duration) (received, error) {
	sent, err := q.read(m)
	if err != nil {
		return received{}, err
	}
	m.visible = now.Add(hide).UnixMilli()
	if m.received++; m.received == 1 {
		m.firstReceived = now.UnixMilli()
	}
	handle := base64.StdEncoding.EncodeToString([]byte(q.name + "/" + m.id + "/" + uuid.NewString()))
	return received{sentMessage: *sent, handle: handle, count: m.received, firstReceived: m.firstReceived}, nil
}

// messageID reads the message's id from a handle. A handle that this queue never gave out is an error.
func (q *queue) messageID(handle string) (string, *apiError) {
	raw, err := base64.StdEncoding.DecodeString(handle)
	parts := strings.Split(string(raw), "/")
	if err != nil || len(parts) != 3 || parts[0] != q.name {
		return "", clientError("ReceiptHandleIsInvalid", fmt.Sprintf("The input receipt handle %q is not a valid receipt handle.", handle))
	}
	return parts[1], nil
}

// setVisible makes the message of the handle visible again after the given time. It leaves a
// message that is visible already as it is. AWS answers OK to that and does nothing
// (localstack#9632 verified it). found is false for a deleted message.
func (q *queue) setVisible(id string, after time.Duration) (found bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	m := q.byID[id]
	if m == nil {
		return false
	}
	now := q.now()
	if m.received == 0 || m.visible <= now.UnixMilli() {
		return true
	}
	m.visible = now.Add(after).UnixMilli()
	if after == 0 {
		q.wake()
	}
	return true
}

// delete removes a message. One that is gone already is not an error.
func (q *queue) delete(id string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.byID[id] == nil {
		return nil
	}
	if err := q.write(queueLine{Delete: id}); err != nil {
		return err
	}
	if dead := q.log.size - q.live; dead > compactionAtLeast && dead > q.live {
		return q.compact()
	}
	return nil
}

// compact rewrites the file without what is deleted. The rename makes it one step for whoever opens it after a kill.
func (q *queue) compact() error {
	fresh, err := os.OpenFile(q.path+".new", os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("compacting queue %s: %w", q.name, err)
	}
	for _, m := range q.messages {
		if err == nil && q.byID[m.id] != nil {
			line := make([]byte, m.length)
			_, errRead := q.log.ReadAt(line, m.offset)
			_, errWrite := fresh.Write(line)
			err = errors.Join(errRead, errWrite)
		}
	}
	if err = errors.Join(err, fresh.Close()); err == nil {
		err = os.Rename(fresh.Name(), q.path)
	}
	if err != nil {
		return fmt.Errorf("compacting queue %s: %w", q.name, err)
	}
	again, err := openQueue(q.path, q.name, q.now)
	if err != nil {
		return err
	}
	for id, m := range again.byID {
		old := q.byID[id]
		m.visible, m.received, m.firstReceived = old.visible, old.received, old.firstReceived
	}
	err = q.log.Close()
	q.log, q.live, q.messages, q.byID = again.log, again.live, again.messages, again.byID
	return err
}

// count returns how many messages are visible, hidden by a receiver, and delayed.
func (q *queue) count() (visible, hidden, delayed int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now().UnixMilli()
	for _, m := range q.byID {
		switch {
		case m.visible <= now:
			visible++
		case m.received > 0:
			hidden++
		default:
			delayed++
		}
	}
	return visible, hidden, delayed
}

func md5Hex(body string) string { return fmt.Sprintf("%x", md5.Sum([]byte(body))) }
