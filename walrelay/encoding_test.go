package walrelay_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"rds-outbox-demo/internal/pgserver"
	"rds-outbox-demo/internal/pgtest"
	"rds-outbox-demo/walrelay"
)

func TestADatabaseThatIsNotUTF8IsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, encoding := range []string{"LATIN1", "SQL_ASCII"} {
		t.Run(encoding, func(t *testing.T) {
			config := r.config(t)
			config.Database = login(t, pgtest.NewWithEncoding(t, encoding))
			relay, err := walrelay.New(config)
			require.NoError(t, err)
			var setup *walrelay.SetupError
			require.ErrorAs(t, relay.Run(t.Context()), &setup)
			require.Equal(t, "the database's encoding is "+encoding+": events are UTF-8, so it must be UTF8", setup.Problem)
			require.Equal(t, pgserver.EncodingRemedy, setup.Remedy)
		})
	}
}
