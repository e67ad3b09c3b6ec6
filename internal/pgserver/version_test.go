package pgserver

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCheckVersion(t *testing.T) {
	t.Parallel()
	for _, supported := range []string{"140000", "140023", "170010", "180004", "190000"} {
		require.NoError(t, CheckVersion(supported))
	}
	require.EqualError(t, CheckVersion("130014"), "PostgreSQL 13 is not supported: walrelay needs 14 or later")
	require.EqualError(t, CheckVersion("90624"), "PostgreSQL 9 is not supported: walrelay needs 14 or later")
	require.ErrorContains(t, CheckVersion("17.10"), `reading server_version_num "17.10"`)
}
