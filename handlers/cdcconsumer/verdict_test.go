package cdcconsumer

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestResultCodes has a batch of three. The second event always gets the code, as an entry or for the whole call that it shares with the
// first. The third is of the same aggregate as the second, and shows whether the lane goes on.
func TestResultCodes(t *testing.T) {
	t.Parallel()
	const (
		parked  = true
		blocked = false
	)
	entryCode := func(code string) func([]wireEntry) (answer, error) {
		return func(entries []wireEntry) (answer, error) {
			codes := make([]string, len(entries))
			for i, e := range entries {
				if isBad(e) {
					codes[i] = code
				}
			}
			return results(codes...), nil
		}
	}
	callCode := func(status int, code string) func([]wireEntry) (answer, error) {
		return func(entries []wireEntry) (answer, error) {
			for _, e := range entries {
				if isBad(e) {
					return answer{status: status, code: code}, nil
				}
			}
			return acceptAll(entries), nil
		}
	}
	broken := func(err error) func([]wireEntry) (answer, error) {
		return func(entries []wireEntry) (answer, error) {
			for _, e := range entries {
				if isBad(e) {
					return answer{}, err
				}
			}
			return acceptAll(entries), nil
		}
	}
	for name, test := range map[string]struct {
		put  func([]wireEntry) (answer, error)
		want bool
		code string // of the parked record
	}{
		"EntryMalformedDetail":                     {entryCode("MalformedDetail"), parked, "MalformedDetail"},
		"EntryInvalidArgument":                     {entryCode("InvalidArgument"), parked, "InvalidArgument"},
		"EntryValidationException":                 {entryCode("ValidationException"), parked, "ValidationException"},
		"EntryInternalFailure":                     {entryCode("InternalFailure"), blocked, ""},
		"EntryThrottlingException":                 {entryCode("ThrottlingException"), blocked, ""},
		"EntryAccessDeniedException":               {entryCode("AccessDeniedException"), blocked, ""},
		"EntryInvalidAccountIdException":           {entryCode("InvalidAccountIdException"), blocked, ""},
		"EntryRedactionFailure":                    {entryCode("RedactionFailure"), blocked, ""},
		"EntryNotAuthorizedForSourceException":     {entryCode("NotAuthorizedForSourceException"), blocked, ""},
		"EntryNotAuthorizedForDetailTypeException": {entryCode("NotAuthorizedForDetailTypeException"), blocked, ""},
		"EntryUnknownCode":                         {entryCode("SomethingNew"), blocked, ""},
		"CallValidationException":                  {callCode(400, "ValidationException"), parked, "ValidationException"},
		"CallTooLarge":                             {callCode(413, ""), parked, "413"},
		"CallTooLargeWithACode":                    {callCode(413, "RequestEntityTooLargeException"), parked, "413"},
		"CallInternalException":                    {callCode(500, "InternalException"), blocked, ""},
		"CallThrottlingException":                  {callCode(400, "ThrottlingException"), blocked, ""},
		"CallAccessDeniedException":                {callCode(400, "AccessDeniedException"), blocked, ""},
		"CallExpiredTokenException":                {callCode(400, "ExpiredTokenException"), blocked, ""},
		"CallResourceNotFoundException":            {callCode(400, "ResourceNotFoundException"), blocked, ""},
		"CallUnknownCode":                          {callCode(400, "SomethingNew"), blocked, ""},
		"CallWithoutCode":                          {callCode(503, ""), blocked, ""},
		"ConnectionReset":                          {broken(errors.New("connection reset by peer")), blocked, ""},
		"ConnectionEnds":                           {broken(io.ErrUnexpectedEOF), blocked, ""},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Config{}, func(t *testing.T, b *bundle) {
				b.put = func(_ context.Context, _ int, entries []wireEntry) (answer, error) { return test.put(entries) }
				failed := b.handle(t, 20*time.Second, batch(car("first", 1), car("bad", 1), car("bad", 2)))
				if test.want == blocked {
					lowest := 1
					if !strings.HasPrefix(name, "Entry") {
						lowest = 0
					}
					require.Equal(t, lowest, failed)
					require.Empty(t, b.parked)
					require.NotContains(t, b.sent("bad"), int64(2), "the successor of a failure was sent")
					require.Greater(t, len(b.sent("bad")), 3, "not retried")
					return
				}
				require.Equal(t, -1, failed)
				require.Len(t, b.parked, 1)
				require.Equal(t, test.code, b.parked[0].ErrorCode)
				require.Equal(t, ReasonRefused, b.parked[0].Reason)
				require.Equal(t, row("bad", 1).ID.String(), b.parked[0].EventID)
				require.Equal(t, []int64{1, 1, 2}, b.sent("bad"), "once in company, once alone, then its successor")
				require.Len(t, b.calls[1], 1, "not confirmed alone")
			})
		})
	}
}

func isBad(e wireEntry) bool {
	d := e.detail()
	return d.AggregateID == "bad" && d.AggregateVersion == 1
}

// TestRefusedCall has a call of ten refused for one of them.
func TestRefusedCall(t *testing.T) {
	t.Parallel()
	t.Run("IsSentAgainOneByOne", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			b.put = func(_ context.Context, _ int, entries []wireEntry) (answer, error) {
				for _, e := range entries {
					if isBad(e) {
						return answer{status: 413}, nil
					}
				}
				return acceptAll(entries), nil
			}
			records := [][]byte{car("bad", 1)}
			for _, id := range strings.Fields("a b c d e f g h i") {
				records = append(records, car(id, 1))
			}
			require.Equal(t, -1, b.handle(t, time.Minute, batch(records...)))
			require.Len(t, b.calls, 11)
			for _, call := range b.calls[1:] {
				require.Len(t, call, 1)
			}
			require.Len(t, b.parked, 1)
		})
	})

	t.Run("KeepsASuspectAloneAfterAFailure", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, b *bundle) {
			b.put = func(_ context.Context, call int, entries []wireEntry) (answer, error) {
				switch {
				case len(entries) > 1:
					return answer{status: 400, code: "ValidationException"}, nil
				case call < 6:
					return answer{status: 500, code: "InternalException"}, nil
				}
				return acceptAll(entries), nil
			}
			require.Equal(t, -1, b.handle(t, time.Minute, batch(car("a", 1), car("b", 1), car("c", 1))))
			require.Len(t, b.calls[0], 3)
			for _, call := range b.calls[1:] {
				require.Len(t, call, 1)
			}
			require.Empty(t, b.parked)
		})
	})
}
