package dbuser

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
)

// iterations is PostgreSQL's own default (scram_iterations). More would slow down every login and add nothing, because our
// passwords are random and long.
const iterations = 4096

// verifier is what PostgreSQL stores for a password: SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>, the keys as in RFC
// 5802, section 3, with the hash of RFC 7677. Given to ALTER ROLE ... PASSWORD in this form it is stored as it is, whatever the
// server's password_encryption, and one cannot log in with it.
//
// Client and server put a password through SASLprep (RFC 4013) first. It leaves printable ASCII alone, and we do not
// implement it. So any other password is refused, because a client could compute other keys than we did.
func verifier(password string, salt []byte) (string, error) {
	if password == "" {
		return "", errors.New("the password is empty")
	}
	for i := range len(password) {
		if password[i] < ' ' || password[i] > '~' {
			return "", fmt.Errorf("character %d of the password is not printable ASCII: use a generated one of letters and digits", i+1)
		}
	}
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return "", err
	}
	storedKey := sha256.Sum256(mac(salted, "Client Key"))
	encode := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, encode(salt), encode(storedKey[:]), encode(mac(salted, "Server Key"))), nil
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
