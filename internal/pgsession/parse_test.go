package pgsession_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgsession"
)

func TestAMalformedConnectionStringIsNotRepeated(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ text, want string }{
		"SpacesInTheValue": {"host=db password=s3cret word user=me", "no name of a setting with = at character 25, after password"},
		"NoPairs":          {"s3cret", "no name of a setting with = at character 1, after the beginning"},
		"OpenQuote":        {"password='s3cret host=db", "the quote of the value of password is not closed"},
		"WrongPort":        {"host=db password=s3cret port=x", "the value of port, or of one before it, is wrong"},
		// pgx takes a part of each of these passwords for the host, which errors of connecting name.
		"AtInThePassword":      {"postgres://me:x@s3cret@db:5432/cars", "an @ is in another place than before the host"},
		"AtSlashInThePassword": {"postgres://me:x@s3cret/x@db:5432/cars", "an @ is in another place than before the host"},
		"AtMarkInThePassword":  {"postgresql://me:x@s3cret?x@db:5432/cars", "an @ is in another place than before the host"},
		"NumberInThePassword":  {"postgres://s3cret:1/x@db", "an @ is in another place than before the host"},
		"SlashInThePassword":   {"postgres://me:s3cret/x@db:5432/cars", "an @ is in another place than before the host, so a character of the password must be percent-encoded"},
		"PercentInPassword":    {"postgres://me:s3cret%zz@db/cars", "a % is not followed by two hexadecimal digits"},
		"SpaceInPassword":      {"postgres://me:s3cret x@db/cars", "the user name or the password has a character that must be percent-encoded"},
		"WrongSSLMode":         {"postgres://me:s3cret@db/cars?sslmode=s3cret", "the value of sslmode is wrong"},
		"WrongTimeout":         {"postgres://me:s3cret@db/cars?connect_timeout=s3cret&sslmode=disable", "the value of connect_timeout is wrong"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := pgsession.ParseConfig(tc.text)
			require.ErrorContains(t, err, tc.want)
			require.NotContains(t, err.Error(), "s3cr")
		})
	}
	config, err := pgsession.ParseConfig("postgres://me:s3%40cret@db:5433/cars?sslmode=disable")
	require.NoError(t, err)
	require.Equal(t, "s3@cret", config.Password)
	for _, taken := range []string{"postgres:///cars", "postgres://db/cars", "postgres://me@db,db2:5433/cars?application_name=a%40b", "host=db user=me@db password=x@y"} {
		_, err := pgsession.ParseConfig(taken)
		require.NoError(t, err, taken)
	}

	_, err = pgsession.ParsePoolConfig("postgres://me:s3cret@db/cars?pool_max_conns=s3cret")
	require.ErrorContains(t, err, "pool_max_conns")
	require.NotContains(t, err.Error(), "s3cret")
	_, err = pgsession.ParsePoolConfig("password='s3cret host=db")
	require.ErrorContains(t, err, "is not closed")
	pool, err := pgsession.ParsePoolConfig("postgres://me:s3cret@db/cars?pool_max_conns=7")
	require.NoError(t, err)
	require.EqualValues(t, 7, pool.MaxConns)
}

// FuzzParseConfig: whatever stands around the password, no error shows it. ParsePoolConfig calls ParseConfig first.
func FuzzParseConfig(f *testing.F) {
	for _, around := range [][2]string{
		{"postgres://me:", "@db:5432/cars"}, {"postgres://me:x@", "@db/cars"}, {"postgresql://", "/x@db"}, {"host=db password=", " user=me"},
		{"host=db password = ", " x"}, {"password='", " host=db"}, {"postgres://me:%", "@db"}, {"", ""}, {"postgres://db/cars?password=", "&sslmode=x"},
		{"postgres://db/cars?x", "=1&port=x"}, {"postgres://[::1", "]:5432/"}, {"host=", "\\"},
	} {
		f.Add(around[0], around[1])
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		const marker = "zQ7mArKeR9"
		if strings.Contains(before+after, marker) {
			return
		}
		if _, err := pgsession.ParsePoolConfig(before + marker + after); err != nil {
			require.NotContains(t, strings.ToLower(err.Error()), strings.ToLower(marker))
		}
		// A password with anything in it that nobody encoded: errors of connecting name host, port, user and database.
		if config, err := pgsession.ParseConfig("postgres://me:" + before + marker + after + "@db/cars"); err == nil {
			require.NotContains(t, fmt.Sprint(config.Host, config.User, config.Database), marker)
		}
	})
}
