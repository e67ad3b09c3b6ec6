package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"rds-outbox-demo/lab/bench"
)

func runBench(ctx context.Context) (err error) {
	rounds, err1 := intEnv("ROUNDS", 5, 1, 1000)
	quick, err2 := boolEnv("QUICK")
	check, err3 := boolEnv("CHECK")
	if err := cmp.Or(err1, err2, err3); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return fmt.Errorf("making a scratch folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	report, err := bench.Run(ctx, bench.Config{
		Dir: dir, Root: ".", Rounds: rounds, Hop: os.Getenv("HOP"), Quick: quick, Check: check, Progress: os.Stderr,
	})
	if err != nil {
		return err
	}
	if err := report.Text(os.Stdout); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	err = writeReport(filepath.Join(dataDir, "bench"), map[string]func(io.Writer) error{
		"report.txt": report.Text, "report.json": report.JSON, "report.svg": report.SVG,
	})
	if err != nil || !check {
		return err
	}
	for _, line := range report.Open() {
		if _, err := fmt.Fprintln(os.Stdout, "bench: "+line); err != nil {
			return fmt.Errorf("writing the table: %w", err)
		}
	}
	if worse := report.Worse(); len(worse) > 0 {
		return fmt.Errorf("bench: %s", strings.Join(worse, "\n  "))
	}
	return nil
}

// writeReport writes files into a folder.
func writeReport(folder string, files map[string]func(io.Writer) error) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("making %s: %w", folder, err)
	}
	for name, write := range files {
		file, err := os.Create(filepath.Join(folder, name))
		if err != nil {
			return fmt.Errorf("writing the report: %w", err)
		}
		if err := errors.Join(write(file), file.Close()); err != nil {
			return fmt.Errorf("writing %s: %w", file.Name(), err)
		}
	}
	return nil
}
