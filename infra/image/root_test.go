package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"

	"rds-outbox-demo/lab/labtest"
)

// TestProgramsTrustAmazonInAnEmptyRoot runs the pushed programs in a root that has only the image.
// Without root certificates of their own, every call to AWS would fail there and nowhere else.
//
// No test has a certificate that a public root has signed. So the server shows a certificate of a
// false root with Amazon's name. The program refuses it in any case. But only a program that has
// Amazon's root reports that it has tried a root of that name.
func TestProgramsTrustAmazonInAnEmptyRoot(t *testing.T) {
	where, _ := repository(t)
	reference, err := name.NewDigest(where + "@" + build(t, t.TempDir(), where))
	require.NoError(t, err)
	image, err := remote.Image(reference)
	require.NoError(t, err)
	root := filepath.Join(t.TempDir(), "root")
	require.NoError(t, os.Mkdir(root, 0o755))
	require.NoError(t, os.Chmod(filepath.Dir(root), 0o755)) // user 65532 must pass through it
	for header, content := range unpacked(t, image) {
		data, err := io.ReadAll(content)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(root, header.Name), data, os.FileMode(header.Mode)))
	}
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = &tls.Config{Certificates: []tls.Certificate{falseAmazon(t)}} //nolint:gosec // a test's server
	server.StartTLS()
	t.Cleanup(server.Close)

	for _, program := range []string{"walrelay", "outboxctl"} {
		args := map[string][]string{"outboxctl": {"audit"}}[program]
		log := labtest.NewLog(t)
		command := exec.Command("/"+program, args...)
		command.Env = []string{
			"AWS_ENDPOINT_URL=" + server.URL, "AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "AWS_MAX_ATTEMPTS=1",
			"STREAM_NAME=stream", "EVENT_BUS_NAME=bus", "BUS_LOG_GROUP=/log", "FAILURE_QUEUE_URL=" + server.URL + "/q",
			"DB_HOST=127.0.0.1", "DB_NAME=outboxdb", "DB_USER=user", "DB_SECRET_ARN=arn:aws:secretsmanager:us-east-1:000000000000:secret:s", "DB_SSL=true",
		}
		command.Dir, command.Stdout, command.Stderr = "/", log, log
		command.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: 65532, Gid: 65532, NoSetGroups: true}}
		if os.Geteuid() != 0 {
			mine := func(id int) []syscall.SysProcIDMap {
				return []syscall.SysProcIDMap{{ContainerID: 65532, HostID: id, Size: 1}}
			}
			command.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
			command.SysProcAttr.UidMappings, command.SysProcAttr.GidMappings = mine(os.Geteuid()), mine(os.Getegid())
		}
		if err := command.Start(); err != nil {
			labtest.Missing(t, "no chroot: it takes root, or user namespaces: "+err.Error())
		}
		// walrelay tries again for ever, so the test does not wait for its end.
		labtest.Eventually(t, program+" says why it does not trust the server", func() bool { return strings.Contains(log.String(), "x509: ") })
		_ = command.Process.Kill()
		_ = command.Wait()
		require.Contains(t, strings.ReplaceAll(log.String(), `\`, ""), `while trying to verify candidate authority certificate "Amazon Root CA 1"`, program)
	}
}

// falseAmazon returns a certificate for 127.0.0.1 whose issuer has the name of Amazon's root, and another key.
func falseAmazon(t *testing.T) tls.Certificate {
	t.Helper()
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		return k
	}
	rootKey, leafKey := key(), key()
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		Subject: pkix.Name{Country: []string{"US"}, Organization: []string{"Amazon"}, CommonName: "Amazon Root CA 1"},
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, root, &leafKey.PublicKey, rootKey)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: leafKey}
}
