package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"strings"

	"github.com/aws/aws-lambda-go/cfn"
)

const (
	// physicalID never changes. To CloudFormation another id is another resource, so it would ask to
	// delete the old one.
	physicalID = "database-migration"
	// maxReason bounds the encoded reason. CloudFormation takes an answer of at most 4096 bytes and drops a larger one.
	// https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref-responses.html
	maxReason = 3000
)

// answerCloudFormation always sends an answer. Its error means that none arrived: Lambda then runs the request again.
func (f *function) answerCloudFormation(ctx context.Context, request json.RawMessage) error {
	var event cfn.Event
	if err := json.Unmarshal(request, &event); err != nil {
		return fmt.Errorf("reading the request of CloudFormation: %w", err)
	}
	if _, err := cfn.LambdaWrap(f.resource)(ctx, event); err != nil {
		var hidden *url.Error
		if errors.As(err, &hidden) {
			err = hidden.Err // whoever has the presigned URL can answer in our name
		}
		err = fmt.Errorf("answering CloudFormation: %w", err)
		f.log(ctx, "answer", slog.String("request", string(event.RequestType)), nil, err)
		return err
	}
	return nil
}

// resource handles Custom::DatabaseMigration. Delete, which also follows a failed Create, leaves the
// database alone, because the tables go or stay with the database. Create and Update both migrate. On the
// rollback of an update the previous program runs, finds the database newer than its files, and leaves it
// as it is. An update with another PasswordVersion also rotates every password.
func (f *function) resource(ctx context.Context, event cfn.Event) (string, map[string]any, error) {
	var answer upAnswer
	var err error
	switch event.RequestType {
	case cfn.RequestDelete:
	case cfn.RequestCreate, cfn.RequestUpdate:
		answer, err = within(ctx, func(ctx context.Context) (upAnswer, error) {
			answer, err := f.up(ctx)
			if before, known := event.OldResourceProperties["PasswordVersion"]; err == nil && known && before != event.ResourceProperties["PasswordVersion"] {
				err = f.rotateAll(ctx)
			}
			return answer, err
		})
	default:
		err = fmt.Errorf("RequestType %q is unknown", event.RequestType)
	}
	f.log(ctx, "custom resource", slog.String("request", string(event.RequestType)), answer, err)
	if err != nil {
		return physicalID, nil, errors.New(fit(err.Error()))
	}
	return physicalID, map[string]any{"Version": strconv.FormatInt(answer.Version, 10)}, nil
}

// fit shortens a reason from its end, because its start says what failed.
func fit(reason string) string {
	reason, cut := strings.ToValidUTF8(reason, "?"), ""
	for {
		encoded, err := json.Marshal(reason + cut)
		if err == nil && len(encoded) <= maxReason {
			return reason + cut
		}
		reason, cut = strings.ToValidUTF8(reason[:len(reason)*9/10], ""), " ..."
	}
}
