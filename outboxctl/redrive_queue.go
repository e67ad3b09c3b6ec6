package outboxctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"golang.org/x/sync/errgroup"
)

const (
	// claimHide is how long a received message is hidden from others. It is short, because nobody has the message until then if
	// the answer gets lost. redriveHide is for the messages that are sent again. They are given back as soon as that is done.
	claimHide   = 20 * time.Second
	redriveHide = 10 * time.Minute
	// maxBytes of a queue bounds the memory. A message counts with the payload that is kept, and with messageBytes for the rest of it.
	// SQS itself hands out at most 120,000 messages of a queue before one is deleted, and without payloads they fit.
	maxBytes     = 128 << 20
	messageBytes = 1 << 10
	// settleTimeout is for deleting and giving back, after Ctrl-C too.
	settleTimeout = 30 * time.Second
)

// holding is the messages of the failure queue and, if there is one, of the discard queue that are hidden from others for us.
type holding struct {
	client *sqs.Client
	urls   []string
	held   map[string]*message // by id, because a message may come twice
	full   bool                // there are more than it takes
	limit  int                 // bytes of one queue
	keeps  func(*message) bool // whose payloads are needed. The others would use up the memory.
	peek   func(queueURL string, fn func(id, body string, sent time.Time)) error
}

// newHolding makes one without messages. keeps says which messages need their payload.
func newHolding(s *Setup, keeps func(*message) bool) *holding {
	h := &holding{
		client: sqs.NewFromConfig(s.AWS), urls: []string{s.FailureQueue}, held: map[string]*message{}, limit: maxBytes, keeps: keeps, peek: s.Peek,
	}
	if s.DiscardQueue != "" && s.DiscardQueue != s.FailureQueue {
		h.urls = append(h.urls, s.DiscardQueue)
	}
	return h
}

func noPayload(*message) bool { return false }

// newMessage makes the message of a queue.
func (h *holding) newMessage(queue, id, body string, sent time.Time) *message {
	m := &message{id: id, queue: queue, sent: sent}
	m.decode(body)
	if !h.keeps(m) {
		m.parked.Data = nil
	}
	return m
}

// bytes returns how much of the limit the queue's held messages have used up.
func (h *holding) bytes(queue string) (n int) {
	for _, m := range h.held {
		if m.queue == queue {
			n += m.bytes()
		}
	}
	return n
}

func (m *message) bytes() int { return messageBytes + len(m.parked.Data) }

// messages returns the held messages by their place on the stream, because a queue has no order.
func (h *holding) messages() []*message {
	return slices.SortedFunc(maps.Values(h.held), func(a, b *message) int {
		shardA, sequenceA := a.place()
		shardB, sequenceB := b.place()
		return cmp.Or(comparePlaces(shardA, sequenceA, shardB, sequenceB), cmp.Compare(a.id, b.id))
	})
}

// claim receives every message that is visible, also with an error.
func (h *holding) claim(ctx context.Context) error {
	received := make([]map[string]*message, len(h.urls))
	full := make([]bool, len(h.urls))
	var group errgroup.Group
	for i, url := range h.urls {
		received[i] = map[string]*message{}
		group.Go(func() (err error) {
			full[i], err = h.claimFrom(ctx, url, received[i])
			return err
		})
	}
	err := group.Wait()
	for _, all := range received {
		maps.Copy(h.held, all) // the later handle, should one come again
	}
	h.full = h.full || slices.Contains(full, true)
	return err
}

func (h *holding) claimFrom(ctx context.Context, url string, all map[string]*message) (full bool, err error) {
	bytes := h.bytes(url)
	for seen := -1; seen < len(all) && bytes < h.limit; {
		seen = len(all) // if it stays the same, the receipt brought nothing, or only messages that had come before
		out, err := h.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
			QueueUrl: &url, MaxNumberOfMessages: 10, VisibilityTimeout: int32(claimHide.Seconds()),
			// Without waiting only some of SQS's servers are asked, and an empty answer means nothing.
			WaitTimeSeconds:             1,
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameSentTimestamp},
		})
		if err != nil {
			return false, fmt.Errorf("receiving from %s: %w", url, err)
		}
		var batch []*message
		for _, received := range out.Messages {
			var sent time.Time
			if millis, err := strconv.ParseInt(received.Attributes["SentTimestamp"], 10, 64); err == nil {
				sent = time.UnixMilli(millis).UTC()
			}
			m := h.newMessage(url, aws.ToString(received.MessageId), aws.ToString(received.Body), sent)
			m.handle = aws.ToString(received.ReceiptHandle)
			if all[m.id] == nil {
				bytes += m.bytes()
			}
			all[m.id] = m
			batch = append(batch, m)
		}
		// These messages are held now, so hide them for longer. Reading a full queue takes longer than claimHide, and an older
		// version that came back meanwhile would look as if there were none.
		if err := h.hide(ctx, batch, redriveHide); err != nil {
			return false, err
		}
	}
	return bytes >= h.limit, nil
}

// look returns all messages, and leaves them to others. whole is false when there are others that it
// did not see.
func (h *holding) look(ctx context.Context) (messages []*message, whole bool, err error) {
	if h.peek != nil {
		for _, url := range h.urls {
			bytes := 0
			err = errors.Join(err, h.peek(url, func(id, body string, sent time.Time) {
				if bytes >= h.limit {
					h.full = true
					return
				}
				m := h.newMessage(url, id, body, sent.UTC())
				bytes += m.bytes()
				h.held[id] = m
			}))
		}
		return h.messages(), !h.full, err
	}
	others := 0
	if err = h.claim(ctx); err == nil {
		others, err = h.othersHold(ctx)
	}
	messages = h.messages()
	return messages, others == 0 && !h.full, errors.Join(err, h.releaseAll(ctx))
}

// othersHold returns how many messages there are that are not held, as far as SQS knows. Another reader has them, an answer was
// lost, or they have just come back, which is why the visible ones count, too.
func (h *holding) othersHold(ctx context.Context) (n int, err error) {
	names := []types.QueueAttributeName{
		types.QueueAttributeNameApproximateNumberOfMessages, types.QueueAttributeNameApproximateNumberOfMessagesNotVisible,
	}
	for _, url := range h.urls {
		out, err := h.client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: names})
		if err != nil {
			return 0, fmt.Errorf("looking at %s: %w", url, err)
		}
		for _, name := range names {
			there, err := strconv.Atoi(out.Attributes[string(name)])
			if err != nil {
				return 0, fmt.Errorf("looking at %s: %w", url, err)
			}
			n += there
		}
	}
	return max(0, n-len(h.held)), nil
}

// hide keeps messages hidden for so long from now on; 0 shows them to others at once.
func (h *holding) hide(ctx context.Context, messages []*message, d time.Duration) error {
	byQueue := map[string][]types.ChangeMessageVisibilityBatchRequestEntry{}
	for i, m := range messages {
		byQueue[m.queue] = append(byQueue[m.queue], types.ChangeMessageVisibilityBatchRequestEntry{
			Id: aws.String(strconv.Itoa(i)), ReceiptHandle: &m.handle, VisibilityTimeout: int32(d.Seconds()),
		})
	}
	for url, entries := range byQueue {
		for batch := range slices.Chunk(entries, 10) {
			out, err := h.client.ChangeMessageVisibilityBatch(ctx, &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: &url, Entries: batch})
			if err == nil && len(out.Failed) > 0 {
				err = fmt.Errorf("%s: %s", aws.ToString(out.Failed[0].Code), aws.ToString(out.Failed[0].Message))
			}
			if err != nil {
				return fmt.Errorf("changing the visibility of messages in %s: %w", url, err)
			}
		}
	}
	return nil
}

// release shows messages to others again, at once.
func (h *holding) release(ctx context.Context, messages []*message) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	for _, m := range messages {
		delete(h.held, m.id)
	}
	if err := h.hide(ctx, messages, 0); err != nil {
		return fmt.Errorf("giving messages back (they come back by themselves, within %s): %w", redriveHide, err)
	}
	return nil
}

// releaseAll releases every message that is still held.
func (h *holding) releaseAll(ctx context.Context) error { return h.release(ctx, h.messages()) }

func (h *holding) delete(ctx context.Context, m *message) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	_, err := h.client.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &m.queue, ReceiptHandle: &m.handle})
	if err != nil {
		return errors.Join(errors.New("the stream has it, but its message stays"), fmt.Errorf("deleting it: %w", err))
	}
	delete(h.held, m.id)
	return nil
}
