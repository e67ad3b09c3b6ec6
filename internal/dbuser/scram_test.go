package dbuser

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// The exchange of RFC 7677, section 3. A server that stored our verifier accepts that client, and
// that client accepts the server.
func TestVerifierAgainstTheRFC(t *testing.T) {
	t.Parallel()
	const (
		password    = "pencil"
		salt        = "W22ZaJ0SNY7soEsUEjb6gQ=="
		proof       = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
		signature   = "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
		nonce       = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
		authMessage = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=" + nonce + ",s=" + salt + ",i=4096,c=biws,r=" + nonce
	)
	got, err := verifier(password, decode(t, salt))
	require.NoError(t, err)
	parts := regexp.MustCompile(`^SCRAM-SHA-256\$4096:([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)$`).FindStringSubmatch(got)
	require.Len(t, parts, 4, got)
	require.Equal(t, salt, parts[1])

	require.Equal(t, signature, base64.StdEncoding.EncodeToString(mac(decode(t, parts[3]), authMessage)))
	clientKey := decode(t, proof)
	for i, b := range mac(decode(t, parts[2]), authMessage) {
		clientKey[i] ^= b
	}
	hash := sha256.Sum256(clientKey)
	require.True(t, hmac.Equal(hash[:], decode(t, parts[2])))
}

func TestPasswordRefused(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ password, message string }{
		"Empty":   {"", "the password is empty"},
		"Umlaut":  {"geheimä", "character 7 of the password is not printable ASCII"},
		"LineEnd": {"secret\n", "character 7 of the password is not printable ASCII"},
		"NotUTF8": {"\xffsecret", "character 1 of the password is not printable ASCII"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := verifier(test.password, make([]byte, 16))
			require.ErrorContains(t, err, test.message)
			require.NotContains(t, err.Error(), "ecre")
		})
	}
	_, err := verifier(" !\"#$%&'()*+,-./0:;<=>?@A[\\]^_`a{|}~", make([]byte, 16))
	require.NoError(t, err)
}

func decode(t *testing.T, text string) []byte {
	t.Helper()
	data, err := base64.StdEncoding.DecodeString(text)
	require.NoError(t, err)
	return data
}
