package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/jackc/pgx/v5"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/internal/dbuser"
	"rds-outbox-demo/internal/lambdalog"
	"rds-outbox-demo/internal/pgsession"
	"rds-outbox-demo/internal/rdsdb"
	"rds-outbox-demo/migrate"
)

// lockTimeout bounds the wait for a table that others use, because every statement after a waiting ALTER
// TABLE waits, too. A migration that must wait longer says SET LOCAL lock_timeout itself. In a file with
// NO TRANSACTION that has no effect. Such a file uses SET, and RESET at the end
// (docs/make-it-yours.md).
const lockTimeout = 5 * time.Second

// user is a component's login user and how this function is told about it.
type user struct {
	name      string // in commands
	env       string // names the secret
	component dbuser.Component
}

var users = []user{
	{"api", "API_SECRET_ARN", dbuser.API},
	{"dms", "DMS_SECRET_ARN", dbuser.DMS},
	{"retention", "RETENTION_SECRET_ARN", dbuser.Retention},
	{"carstats", "CARSTATS_SECRET_ARN", dbuser.CarStats},
	{"canary", "CANARY_SECRET_ARN", dbuser.Canary},
}

// job is what one invocation works with.
type job struct {
	owner   *pgx.ConnConfig // the master user
	limits  pgsession.Limits
	secrets *secretsmanager.Client
	arns    map[string]string // of the secrets, by user.name
}

// prepare reads the environment and the master user's password.
func (f *function) prepare(ctx context.Context) (*job, error) {
	dbConfig, err := rdsdb.ConfigFromEnv(f.getenv)
	errs := []error{err}
	j := &job{arns: map[string]string{}}
	for _, u := range users {
		j.arns[u.name] = f.getenv(u.env)
		if j.arns[u.name] == "" {
			errs = append(errs, fmt.Errorf("%s is empty: set it to the ARN of the secret with the user's name and password", u.env))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("reading the environment: %w", err)
	}
	awsConfig, err := config.LoadDefaultConfig(ctx, config.WithLogger(lambdalog.SDK(f.logger)))
	if err != nil {
		return nil, fmt.Errorf("configuring the AWS SDK: %w", err)
	}
	j.secrets = secretsmanager.NewFromConfig(awsConfig)
	dbConfig.ApplicationName = "migrate"
	// These end on the server what is left of us if Lambda stops us first.
	j.limits = pgsession.Limits{Lock: lockTimeout, IdleInTransaction: 30 * time.Second} // longer than the secrets take
	if deadline, ok := ctx.Deadline(); ok {
		j.limits.Statement = max(time.Until(deadline), time.Second)
	}
	j.owner, err = rdsdb.ConnConfig(ctx, dbConfig, j.secrets, j.limits)
	return j, err
}

type upAnswer struct {
	Version int64    `json:"version"`
	Ran     []string `json:"ran"`   // files, in the order they ran
	Users   []string `json:"users"` // that can log in with what their secrets hold now
}

func (f *function) up(ctx context.Context) (upAnswer, error) {
	j, err := f.prepare(ctx)
	if err != nil {
		return upAnswer{}, err
	}
	result, err := migrate.Up(ctx, j.owner, migrate.Options{Limits: j.limits})
	if err != nil {
		return upAnswer{}, err
	}
	answer := upAnswer{Version: result.Version, Ran: []string{}}
	for _, m := range result.Ran {
		answer.Ran = append(answer.Ran, m.File)
	}
	err = j.inTurn(ctx, func(tx pgx.Tx) error {
		answer.Users, err = j.ensureUsers(ctx, tx)
		return err
	})
	if err != nil {
		return upAnswer{}, fmt.Errorf("the database is at version %d, its users are as they were: %w", result.Version, err)
	}
	return answer, nil
}

type partitionAnswer struct {
	First    string    `json:"first"` // the partition that outbox became; empty if outbox was partitioned before
	Until    time.Time `json:"until"` // end of first
	Attached int       `json:"attached"`
}

// partition makes outbox a table that is partitioned by day.
func (f *function) partition(ctx context.Context) (partitionAnswer, error) {
	j, err := f.prepare(ctx)
	if err != nil {
		return partitionAnswer{}, err
	}
	done, err := migrate.Partition(ctx, j.owner, migrate.PartitionWidth, migrate.FirstPartition, migrate.Options{Limits: j.limits})
	return partitionAnswer(done), err
}

func (j *job) ensureUsers(ctx context.Context, tx pgx.Tx) ([]string, error) {
	var names []string
	for _, u := range users {
		s, err := j.read(ctx, j.arns[u.name])
		if err != nil {
			return nil, err
		}
		if other := slices.Index(names, s.login.Name); other >= 0 {
			return nil, fmt.Errorf("the secrets of %s and %s are both of user %q: give each a user of its own", users[other].env, u.env, s.login.Name)
		}
		if err := dbuser.Ensure(ctx, tx, u.component, s.login); err != nil {
			return nil, err
		}
		names = append(names, s.login.Name)
	}
	return names, nil
}

type rotateAnswer struct {
	User          string `json:"user"`
	SecretVersion string `json:"secretVersion"`
}

// rotate gives a user a new password, which nobody but the secret, the database and this function sees.
//
// Database and secret cannot change at the same time. The secret changes last before the commit. So for a
// few milliseconds between the two the database refuses a login with the new secret. Before that everybody
// has the old password. After it, a refused login makes rdsdb.Pool read the new password. Open sessions
// are not affected.
func (f *function) rotate(ctx context.Context, name string) (rotateAnswer, error) {
	chosen := slices.IndexFunc(users, func(u user) bool { return u.name == name })
	if chosen < 0 {
		return rotateAnswer{}, fmt.Errorf("user %q is unknown: %s", name, usage)
	}
	j, err := f.prepare(ctx)
	if err != nil {
		return rotateAnswer{}, err
	}
	var answer rotateAnswer
	stored := false
	err = j.inTurn(ctx, func(tx pgx.Tx) error {
		s, err := j.read(ctx, j.arns[name])
		if err != nil {
			return err
		}
		s.login.Password = rand.Text()
		if err := dbuser.Ensure(ctx, tx, users[chosen].component, s.login); err != nil {
			return err
		}
		stored = true // after an error perhaps, because an answer can get lost
		answer.User = s.login.Name
		answer.SecretVersion, err = j.write(ctx, s)
		return err
	})
	switch {
	case err != nil && stored:
		return rotateAnswer{}, fmt.Errorf(`the secret may hold a password that the database does not know: `+
			`run {"command":"up"} now, which sets what the secret holds: %w`, err)
	case err != nil:
		return rotateAnswer{}, fmt.Errorf("the password is as it was: %w", err)
	}
	return answer, nil
}

// rotateAll rotates one user after the other. In one transaction for all of them an error would leave every secret that is written
// already with a password that the database does not know.
func (f *function) rotateAll(ctx context.Context) error {
	for _, u := range users {
		if _, err := f.rotate(ctx, u.name); err != nil {
			return fmt.Errorf("rotating the password of %s: %w", u.name, err)
		}
	}
	return nil
}

// inTurn connects and calls do in a transaction while no other invocation does the same.
func (j *job) inTurn(ctx context.Context, do func(pgx.Tx) error) error {
	conn, err := pgx.ConnectConfig(ctx, j.owner)
	if err != nil {
		return fmt.Errorf("connecting to database %s: %w", j.owner.Database, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if err := dbuser.Lock(ctx, tx); err != nil {
			return err
		}
		return do(tx)
	})
}

type statusAnswer struct {
	Version int64        `json:"version"`
	Pending int          `json:"pending"`
	Files   []fileStatus `json:"files"`
}

type fileStatus struct {
	Version   int64      `json:"version"`
	File      string     `json:"file"`
	AppliedAt *time.Time `json:"appliedAt"` // null if pending
}

func (f *function) status(ctx context.Context) (statusAnswer, error) {
	j, err := f.prepare(ctx)
	if err != nil {
		return statusAnswer{}, err
	}
	files, version, err := migrate.Status(ctx, j.owner, migrate.Options{Limits: j.limits})
	if err != nil {
		return statusAnswer{}, err
	}
	answer := statusAnswer{Version: version}
	for _, file := range files {
		status := fileStatus{Version: file.Version, File: file.File}
		if file.AppliedAt.IsZero() {
			answer.Pending++
		} else {
			at := file.AppliedAt.UTC()
			status.AppliedAt = &at
		}
		answer.Files = append(answer.Files, status)
	}
	return answer, nil
}

type slotsAnswer struct {
	Slots []slot `json:"slots"`
}

type slot struct {
	Name      string `json:"name"`
	Plugin    string `json:"plugin"` // pgoutput is walrelay's, test_decoding is DMS's
	Active    bool   `json:"active"`
	WALStatus string `json:"walStatus"`
	Usable    bool   `json:"usable"` // reading goes on where it ended
}

// slots is for the scripts outside of the network. They must not take the relay's last words for the state of its slot.
func (f *function) slots(ctx context.Context) (slotsAnswer, error) {
	j, err := f.prepare(ctx)
	if err != nil {
		return slotsAnswer{}, err
	}
	conn, err := pgx.ConnectConfig(ctx, j.owner)
	if err != nil {
		return slotsAnswer{}, fmt.Errorf("connecting to database %s: %w", j.owner.Database, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	rows, err := dbgen.New(conn).SlotList(ctx)
	if err != nil {
		return slotsAnswer{}, fmt.Errorf("reading the replication slots: %w", err)
	}
	answer := slotsAnswer{Slots: []slot{}}
	for _, row := range rows {
		answer.Slots = append(answer.Slots, slot{row.Name, row.Plugin, row.Active, row.WalStatus, row.Usable})
	}
	return answer, nil
}
