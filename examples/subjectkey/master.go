package subjectkey

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/aws/aws-sdk-go-v2/service/kms"
)

// File is a Master whose key is a file of 32 random bytes.
type File struct{ key cipher.AEAD }

// OpenFile reads the master key, and makes it if there is no such file.
func OpenFile(name string) (File, error) {
	key, err := os.ReadFile(name) //nolint:gosec // the caller names it
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, keySize)
		_, _ = rand.Read(key) // never fails
		err = os.WriteFile(name, key, 0o600)
	}
	if err != nil {
		return File{}, fmt.Errorf("reading the master key: %w", err)
	}
	if len(key) != keySize {
		return File{}, fmt.Errorf("reading the master key: %s has %d bytes and not %d", name, len(key), keySize)
	}
	sealer, err := aead(key)
	return File{sealer}, err
}

// Wrap is Master's.
func (f File) Wrap(_ context.Context, key []byte, subject string) ([]byte, error) {
	return f.key.Seal(nil, nil, key, []byte(subject)), nil
}

// Unwrap is Master's.
func (f File) Unwrap(_ context.Context, wrapped []byte, subject string) ([]byte, error) {
	return f.key.Open(nil, nil, wrapped, []byte(subject))
}

// KMS is a Master whose key never leaves AWS KMS. Each Seal and each Open calls KMS. CloudTrail
// logs the subject in plain text.
type KMS struct {
	Client *kms.Client
	KeyID  string // or ARN, or alias/name
}

// Wrap is Master's.
func (k KMS) Wrap(ctx context.Context, key []byte, subject string) ([]byte, error) {
	out, err := k.Client.Encrypt(ctx, &kms.EncryptInput{KeyId: &k.KeyID, Plaintext: key, EncryptionContext: map[string]string{"subject": subject}})
	if err != nil {
		return nil, fmt.Errorf("encrypting with KMS: %w", err)
	}
	return out.CiphertextBlob, nil
}

// Unwrap is Master's.
func (k KMS) Unwrap(ctx context.Context, wrapped []byte, subject string) ([]byte, error) {
	out, err := k.Client.Decrypt(ctx, &kms.DecryptInput{KeyId: &k.KeyID, CiphertextBlob: wrapped, EncryptionContext: map[string]string{"subject": subject}})
	if err != nil {
		return nil, fmt.Errorf("decrypting with KMS: %w", err)
	}
	return out.Plaintext, nil
}
