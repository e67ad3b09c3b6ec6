// Command outboxctl is the operator's program. It says where an event is, whether all of them
// arrived, and what to do about those that did
// not. It is the same program for a laptop and for AWS, and talks to both through the AWS SDK. docs/outboxctl.md describes it.
//
// In: a set-up from the environment or a file of it (environment.go). Out: text, or with --json one JSON object. The exit
// code is 0, or 1 when something is wrong with the events or with the work, or 2 on wrong use.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	// The public web's roots, for where there is no system store, such as an image on an empty base.
	_ "golang.org/x/crypto/x509roots/fallback"

	"rds-outbox-demo/outboxctl"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	code := outboxctl.Run(ctx, os.Args[1:], setup, os.Stdout, os.Stderr)
	// CloudWatch Logs has a task's last lines only some time after ECS says that the task has stopped. By these two
	// scripts/run-outboxctl.sh knows that it has them all. Either output may be behind the other one.
	if line := os.Getenv("LAST_LINE"); line != "" {
		fmt.Fprintln(os.Stdout, line)
		fmt.Fprintln(os.Stderr, line)
	}
	os.Exit(code)
}
