package claimcheck

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Folder keeps objects as files below a folder. A key from an event cannot lead out of it.
type Folder struct{ Root *os.Root }

// Put is Store's.
func (f Folder) Put(_ context.Context, key string, data []byte) error {
	if err := f.Root.MkdirAll(path.Dir(key), 0o700); err != nil {
		return fmt.Errorf("making the folder of %q: %w", key, err)
	}
	// A reader must never see the first half of an object.
	temporary := key + ".tmp"
	file, err := f.Root.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("making %q: %w", temporary, err)
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = f.Root.Rename(temporary, key)
	}
	if err != nil {
		return fmt.Errorf("writing %q: %w", key, err)
	}
	return nil
}

// Get is Store's.
func (f Folder) Get(_ context.Context, key string) ([]byte, error) {
	data, err := f.Root.ReadFile(key)
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", key, err)
	}
	return data, nil
}

// S3 keeps objects in a bucket.
type S3 struct {
	Client *s3.Client
	Bucket string
}

// Put is Store's. S3 answers after the object is durable.
func (s S3) Put(ctx context.Context, key string, data []byte) error {
	_, err := s.Client.PutObject(ctx, &s3.PutObjectInput{Bucket: &s.Bucket, Key: &key, Body: bytes.NewReader(data), ContentType: aws.String("application/json")})
	if err != nil {
		return fmt.Errorf("putting object %q: %w", key, err)
	}
	return nil
}

// Get is Store's.
func (s S3) Get(ctx context.Context, key string) ([]byte, error) {
	object, err := s.Client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.Bucket, Key: &key})
	if err != nil {
		return nil, fmt.Errorf("getting object %q: %w", key, err)
	}
	defer func() { _ = object.Body.Close() }()
	data, err := io.ReadAll(object.Body)
	if err != nil {
		return nil, fmt.Errorf("reading object %q: %w", key, err)
	}
	return data, nil
}
