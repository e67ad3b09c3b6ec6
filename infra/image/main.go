// Command image builds walrelay's container image without Docker. The image has two static programs
// and the certificates of Amazon RDS on an empty base.
//
// In: -out, a folder; -push, a repository such as
// 123.dkr.ecr.us-east-1.amazonaws.com/demo/walrelay, with its password on standard input;
// WALRELAY_GOARCH, arm64 when unset. Out: the image's digest on standard output, and its software
// bill of materials in <folder>/walrelay.cdx.json (CycloneDX). The same sources and Go release give
// the same digest, so an image that the repository has is not pushed again.
package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"rds-outbox-demo/infra/bill"
	"rds-outbox-demo/infra/gobuild"
)

func main() {
	out := flag.String("out", "", "folder for the bill of materials")
	repository := flag.String("push", "", "repository to push to")
	flag.Parse()
	if err := run(*out, *repository, cmp.Or(os.Getenv("WALRELAY_GOARCH"), "arm64"), os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(out, repository, arch string, password io.Reader, stdout io.Writer) (err error) {
	if out == "" || flag.NArg() > 0 {
		return errors.New("usage: image -out folder [-push repository <password]")
	}
	built, err := os.MkdirTemp("", "image")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(built)) }()
	files := map[string]string{"rds-ca-bundle.pem": "internal/rdsdb/rds-ca-bundle.pem"}
	var binaries []string
	for program, folder := range programs {
		files[program] = filepath.Join(built, program)
		binaries = append(binaries, files[program])
		if err := gobuild.Build(files[program], folder, "linux", arch); err != nil {
			return fmt.Errorf("building %s: %w", program, err)
		}
	}
	image, err := assemble(files, arch)
	if err != nil {
		return fmt.Errorf("assembling the image: %w", err)
	}
	digest, err := image.Digest()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o750); err != nil {
		return err
	}
	subject := cdx.Component{
		BOMRef: digest.String(), Type: cdx.ComponentTypeContainer, Name: "walrelay", Version: digest.String(),
		Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: digest.Hex}},
	}
	components, err := bill.OfBinaries(binaries...)
	if err != nil {
		return fmt.Errorf("reading what the programs are made of: %w", err)
	}
	if err := bill.Write(filepath.Join(out, "walrelay.cdx.json"), subject, components); err != nil {
		return fmt.Errorf("writing the bill of materials: %w", err)
	}
	if repository != "" {
		if err := push(image, repository, digest, password); err != nil {
			return fmt.Errorf("pushing to %s: %w", repository, err)
		}
	}
	_, err = fmt.Fprintln(stdout, digest)
	return err
}

// push pushes the image under a tag that is its digest, so that the tag can never name another
// image. ECR also takes an image without a tag
// (https://github.com/google/go-containerregistry/issues/1568 has such a push). But clean-up rules
// of accounts delete untagged images, and no rule asks whether ECS runs them.
func push(image v1.Image, repository string, digest v1.Hash, password io.Reader) error {
	where, err := name.NewRepository(repository)
	if err != nil {
		return err
	}
	secret, err := io.ReadAll(password)
	if err != nil {
		return err
	}
	login := remote.WithAuth(&authn.Basic{Username: "AWS", Password: strings.TrimSpace(string(secret))})
	_, err = remote.Head(where.Digest(digest.String()), login)
	var refused *transport.Error
	switch {
	case err == nil:
		fmt.Fprintln(os.Stderr, "image: the repository has it already")
		return nil
	case !errors.As(err, &refused) || refused.StatusCode != http.StatusNotFound:
		return err
	}
	return remote.Write(where.Tag(digest.Hex), image, login)
}
