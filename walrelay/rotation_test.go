package walrelay_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

const secretName = "relay"

// withSecret gives the programs to come a user of their own, whose password is in a secret. Its
// password is first.
func (r *rig) withSecret(t *testing.T) (user string) {
	t.Helper()
	user = "user_" + r.slot
	r.exec(t, "CREATE ROLE "+user+" LOGIN REPLICATION PASSWORD 'first' IN ROLE outbox_relay")
	t.Cleanup(func() { r.exec(t, "DROP ROLE "+user) })
	r.setSecret(user, "first")
	config := r.db.Pool.Config().ConnConfig
	r.env = []string{
		"DB_HOST=" + config.Host, fmt.Sprintf("DB_PORT=%d", config.Port), "DB_NAME=" + config.Database, "DB_USER=" + user,
		"DB_SECRET_ARN=" + secretName, "DB_SSL=false",
	}
	return user
}

func (r *rig) setSecret(user, password string) {
	r.aws.SetSecret(secretName, fmt.Sprintf(`{"username":%q,"password":%q}`, user, password))
}

// A rotation changes the secret and the role one after the other, and in between the server refuses every login. Neither the relay
// that streams nor its standby may end because of that, and both use the new password afterwards.
func TestARotationStopsNoRelay(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	user := r.withSecret(t)
	active, activeDead := r.command(t, program(t))
	r.streaming(t)
	standby := *r
	standby.log = labtest.NewLog(t)
	_, standbyDead := standby.command(t, program(t))
	r.eventually(t, "the second to stand by", func() bool { return strings.Contains(standby.logged(), "standby: another relay holds the slot") })
	r.append(t, "a", 5, 1, 1)
	r.await(t, 5)

	r.exec(t, "ALTER ROLE "+user+" PASSWORD 'second'")
	r.exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", user)
	for name, log := range map[string]*labtest.Log{"relay": r.log, "standby": standby.log} {
		r.eventually(t, "the "+name+" to be refused", func() bool { return strings.Contains(log.String(), "SQLSTATE 28P01") })
	}
	r.append(t, "a", 5, 2, 2)
	measured := strings.Count(r.logged()+standby.logged(), `"msg":"slot"`)
	r.setSecret(user, "second")
	r.requireWhole(t, r.await(t, 10))
	r.eventually(t, "the slot to be measured again", func() bool {
		return strings.Count(r.logged()+standby.logged(), `"msg":"slot"`) > measured
	})
	require.False(t, ended(activeDead), "the relay goes on")
	require.False(t, ended(standbyDead), "the standby goes on")

	require.NoError(t, active.Process.Kill())
	<-activeDead
	r.streaming(t)
	r.append(t, "a", 5, 3, 3)
	r.requireWhole(t, r.await(t, 15))
	require.NotContains(t, r.logged()+standby.logged(), `second"`, "no password is logged")
}

// A password that was never right is not a rotation. A new deployment with a wrong secret must fail instead of
// waiting.
func TestAWrongSecretEndsTheRelay(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.setSecret(r.withSecret(t), "wrong")
	relay, dead := r.command(t, program(t))
	<-dead
	require.Equal(t, 1, relay.ProcessState.ExitCode())
	require.Contains(t, r.logged(), "SQLSTATE 28P01")
	require.Contains(t, r.logged(), "check user, password")
}

func TestAMixtureOfDatabasesIsRefused(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		env  []string
		want string
	}{
		"Both":    {[]string{"DATABASE_URL=postgres://localhost/x", "DB_HOST=db.example.com"}, "DATABASE_URL and DB_HOST are both set"},
		"Neither": {[]string{}, "DATABASE_URL is not set, and of the variables in its place"},
		"Half":    {[]string{"DB_HOST=db.example.com", "DB_SSL=true"}, "DB_SECRET_ARN (SecretARN) is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &rig{log: labtest.NewLog(t), env: tc.env}
			relay, dead := r.command(t, program(t))
			<-dead
			require.Equal(t, 1, relay.ProcessState.ExitCode())
			require.Contains(t, r.logged(), tc.want)
		})
	}
}
