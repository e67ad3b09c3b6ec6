package pgsession_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgsession"
)

func TestAMalformedConnectionStringIsNotRepeated(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ text, want string }{
		"SpacesInTheValue":   {"host=db password=s3cret word user=me", "no name of a setting with = at character 25, after password"},
		"NoPairs":            {"s3cret", "no name of a setting with = at character 1, after the beginning"},
		"OpenQuote":          {"password='s3cret host=db", "the quote of the value of password is not closed"},
		"WrongPort":          {"host=db password=s3cret port=x", "the value of port, or of one before it, is wrong"},
		"AtInThePassword":    {"postgres://me:s3cr@et/x@db:5432/cars", ""},
		"SlashInThePassword": {"postgres://me:s3cret/x@db:5432/cars", "the port is not a number, or the password has a character that must be percent-encoded"},
		"PercentInPassword":  {"postgres://me:s3cret%zz@db/cars", "a % is not followed by two hexadecimal digits"},
		"SpaceInPassword":    {"postgres://me:s3cret x@db/cars", "the user name or the password has a character that must be percent-encoded"},
		"WrongSSLMode":       {"postgres://me:s3cret@db/cars?sslmode=s3cret", "the value of sslmode is wrong"},
		"WrongTimeout":       {"postgres://me:s3cret@db/cars?connect_timeout=s3cret&sslmode=disable", "the value of connect_timeout is wrong"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := pgsession.ParseConfig(tc.text)
			if tc.want == "" && err == nil {
				return // pgx reads it
			}
			require.ErrorContains(t, err, tc.want)
			require.NotContains(t, err.Error(), "s3cr")
		})
	}
	config, err := pgsession.ParseConfig("postgres://me:s3cret@db:5433/cars?sslmode=disable")
	require.NoError(t, err)
	require.Equal(t, "s3cret", config.Password)

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
	})
}
