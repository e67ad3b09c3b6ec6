package main

import (
	"crypto/x509"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// asImage makes the test binary a program on a machine without a system store of certificates.
const asImage = "WALRELAY_TEST_AS_IMAGE"

// An image on an empty base has no roots. SystemCertPool then has the program's own.
func TestThePublicWebsRootsAreLinkedIn(t *testing.T) {
	t.Parallel()
	if os.Getenv(asImage) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = []string{asImage + "=1", "SSL_CERT_FILE=/nowhere", "SSL_CERT_DIR=/nowhere", "GORACE=atexit_sleep_ms=0", "TMPDIR=" + os.TempDir()}
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return
	}
	roots, err := x509.SystemCertPool()
	require.NoError(t, err)
	require.False(t, roots.Equal(x509.NewCertPool()), "no roots: every call to AWS would fail")
}
