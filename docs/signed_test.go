package docs_test

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/stretchr/testify/require"
)

// TestSignedRequest runs the signed request of docs/deploy.md against a server, with stand-ins for make and aws, and signs what arrives
// again as the AWS SDK does. API Gateway compares signatures in the same way.
func TestSignedRequest(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl")
	}
	var commands string
	for _, p := range pages(t) {
		for _, f := range p.fences {
			if text := strings.Join(f.lines, "\n"); p.path == "docs/deploy.md" && strings.Contains(text, "--aws-sigv4") {
				commands = text
			}
		}
	}
	require.NotEmpty(t, commands)

	for name, token := range map[string]string{"OfARole": "the+session/token==", "OfAUser": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got *http.Request
			var body []byte
			server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				got = r
				body, _ = io.ReadAll(r.Body)
			}))
			t.Cleanup(server.Close)
			bin := t.TempDir()
			for command, prints := range map[string]string{
				"make": server.URL + "/prod",
				"aws":  "export AWS_ACCESS_KEY_ID=AKIDEXAMPLE\nexport AWS_SECRET_ACCESS_KEY=wJalr/EXAMPLE\nexport AWS_SESSION_TOKEN=" + token,
			} {
				require.NoError(t, os.WriteFile(filepath.Join(bin, command), []byte("#!/bin/sh\necho '"+prints+"'\n"), 0o700))
			}
			run := exec.CommandContext(t.Context(), "bash", "-c", commands)
			run.Env = environment("PATH="+bin+":"+os.Getenv("PATH"), "no_proxy=*")
			printed, err := run.CombinedOutput()
			require.NoError(t, err, "%s", printed)
			server.Close() // then got and body are ours
			require.NotNil(t, got)
			require.Equal(t, "/prod/cars", got.URL.Path)
			require.Equal(t, "application/json", got.Header.Get("Content-Type"))
			require.Equal(t, []string{token}, append(got.Header.Values("X-Amz-Security-Token"), "")[:1])

			authorization := got.Header.Get("Authorization")
			signed := regexp.MustCompile(`SignedHeaders=([^,]+),`).FindStringSubmatch(authorization)
			require.NotNil(t, signed, authorization)
			again, err := http.NewRequestWithContext(t.Context(), got.Method, "http://"+got.Host+got.URL.Path, nil)
			require.NoError(t, err)
			for _, header := range strings.Split(signed[1], ";") {
				if header != "host" {
					again.Header.Set(header, got.Header.Get(header))
				}
			}
			at, err := time.Parse("20060102T150405Z", got.Header.Get("X-Amz-Date"))
			require.NoError(t, err)
			hash := sha256.Sum256(body)
			require.NoError(t, v4.NewSigner().SignHTTP(t.Context(), aws.Credentials{
				AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "wJalr/EXAMPLE", SessionToken: token,
			}, again, hex.EncodeToString(hash[:]), "execute-api", "us-east-1", at))
			require.Equal(t, again.Header.Get("Authorization"), authorization)
		})
	}
}
