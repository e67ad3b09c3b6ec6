package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"

	"rds-outbox-demo/lab/chaos"
	"rds-outbox-demo/lab/chaos/report"
)

// defaultRounds meet every kind of fault, in a minute or two. A sabotage must be caught within as many rounds as it gets.
const defaultRounds, sabotageRounds = 5, 4

func runChaos(ctx context.Context) error {
	sabotaged := os.Getenv("SABOTAGE")
	if sabotaged == "list" {
		for _, s := range chaos.Sabotages {
			if _, err := fmt.Fprintf(os.Stdout, "%-26s %s\n", s.Name, s.Says); err != nil {
				return err
			}
		}
		return nil
	}
	rounds := defaultRounds
	if sabotaged != "" {
		rounds = sabotageRounds
	}
	rounds, err := intEnv("ROUNDS", rounds, 1, 100_000)
	if err != nil {
		return err
	}
	seed := rand.Uint64()
	if value := os.Getenv("SEED"); value != "" {
		if seed, err = strconv.ParseUint(value, 10, 64); err != nil {
			return usageError(fmt.Sprintf("SEED is %q: give a whole number from 0 to 18446744073709551615, or leave it out", value))
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	config := chaos.Config{
		Seed: seed, Rounds: rounds, Sabotage: sabotaged, Promote: os.Getenv("PROMOTE") == "1", PostgreSQL: os.Getenv("POSTGRES"),
		Root: ".", Lab: self, Relay: filepath.Join(filepath.Dir(self), "walrelay"), Outboxctl: filepath.Join(filepath.Dir(self), "..", "outboxctl"),
		Out: os.Stdout, Progress: os.Stderr,
		Report: func(r *report.Report) error {
			err := writeReport(filepath.Join(dataDir, "chaos"), map[string]func(io.Writer) error{
				"report.txt": r.WriteText, "report.json": r.WriteJSON, "report.svg": r.WriteSVG,
			})
			return errors.Join(err, r.WriteText(os.Stdout))
		},
	}
	if err := config.Validate(); err != nil {
		return usageError(err.Error())
	}
	if err := chaos.Run(ctx, config); !errors.Is(err, chaos.ErrFailed) {
		return err
	}
	return errQuiet // the last line has said it
}

// errQuiet is exit code 1 without a line.
var errQuiet = errors.New("not passed")
