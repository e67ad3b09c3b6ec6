package awslocal

import "fmt"

// Redrive is a queue's redrive policy. A message that was received MaxReceiveCount times and never
// deleted goes to another queue instead of being received once more. It keeps its id and its age,
// as in SQS.
type Redrive struct {
	DeadLetterQueue string
	MaxReceiveCount int // 1 to 1,000
}

func (s *sqs) setRedrives() error {
	for name, redrive := range s.conf.Redrives {
		q, dead := s.queues[name], s.queues[redrive.DeadLetterQueue]
		_, chained := s.conf.Redrives[redrive.DeadLetterQueue]
		if q == nil || dead == nil || chained || redrive.MaxReceiveCount < 1 || redrive.MaxReceiveCount > 1000 {
			return fmt.Errorf("awslocal: Config.Redrives[%q] is %+v: name two queues of Queues, the second without a redrive of its own, and 1 to 1000 receives",
				name, redrive)
		}
		q.dead, q.maxReceive = dead, redrive.MaxReceiveCount
	}
	return nil
}

// bury moves a message to the dead-letter queue. A kill between the two writes leaves it in both. q.mu is held.
func (q *queue) bury(m *message) error {
	sent, err := q.read(m)
	if err != nil {
		return err
	}
	sent.Visible = q.now().UnixMilli()
	if err := q.dead.accept(sent); err != nil {
		return err
	}
	return q.write(queueLine{Delete: m.id})
}

// accept takes a message of another queue. A message that the queue has already stays as it is.
func (q *queue) accept(sent *sentMessage) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.byID[sent.ID] != nil {
		return nil
	}
	if err := q.write(queueLine{Send: sent}); err != nil {
		return err
	}
	q.wake()
	return nil
}
