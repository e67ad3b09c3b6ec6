package carapi_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/failpoint"
	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/lab/labtest"
	"rds-outbox-demo/lab/process"
)

// SIGKILL while fifty equal requests are on their way, before or after the commit of the first one.
// Each client that tries again gets the same car.
func TestKilledBetweenFiftyEqualRequests(t *testing.T) {
	t.Parallel()
	for _, point := range []failpoint.Point{failpoint.APIInTransaction, failpoint.APIAfterCommit} {
		t.Run(string(point), func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			// The program whose `part api` is this API as a process, in the build that FAILPOINT can kill.
			program := labtest.Program(t, "lab", "failpoints", "sabotage")
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer listener.Close()
			// The socket stays open while no process runs, so that clients wait for the next process.
			socket, err := listener.(*net.TCPListener).File()
			require.NoError(t, err)
			defer socket.Close()
			output, err := os.Create(filepath.Join(t.TempDir(), "log"))
			require.NoError(t, err)
			defer output.Close()
			start := func(env ...string) *process.Process {
				p, err := process.Start(process.Config{
					Program: program, Args: []string{"part", "api"}, Env: append(env, fmt.Sprintf(`LAB_PART={"DatabaseURL":%q}`, db.URL)), Output: output, Inherited: socket,
				})
				require.NoError(t, err)
				return p
			}
			first := start("FAILPOINT=" + string(point))
			next := make(chan *process.Process, 1)
			go func() {
				<-first.Done()
				next <- start()
			}()

			deadline, cancel := context.WithTimeout(t.Context(), labtest.Patience)
			defer cancel()
			answers := fifty(func() string {
				for {
					status, body, err := post(deadline, "http://"+listener.Addr().String()+"/cars")
					switch {
					case err == nil && status == http.StatusCreated:
						return body
					case err == nil && status != http.StatusConflict:
						return body + " with another status"
					case deadline.Err() != nil:
						return "no answer in time"
					}
					// The client's pause before its next try. A real client waits a second, as Retry-After says.
					time.Sleep(5 * time.Millisecond)
				}
			})
			select {
			case second := <-next:
				defer second.Stop(context.Background(), time.Second)
				require.True(t, first.Killed(), "%v", first.Err())
			case <-deadline.Done():
				first.Stop(context.Background(), time.Second)
				(<-next).Stop(context.Background(), time.Second)
				t.Fatal("the process was not killed")
			}
			for _, answer := range answers {
				require.Equal(t, answers[0], answer)
			}
			require.Contains(t, answers[0], "Car created successfully")
			for _, table := range []string{"cars", "outbox", "idempotency"} {
				require.Equal(t, 1, bundle{DB: db}.count(t, table), table)
			}
		})
	}
}

func post(ctx context.Context, url string) (status int, body string, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(bmw))
	if err != nil {
		return 0, "", err
	}
	r.Header.Set(key, "the-one")
	r.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	return response.StatusCode, string(data), err
}
