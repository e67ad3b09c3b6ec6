// Package lambdalog is the one place from which a Lambda function writes to its output. CloudWatch makes metrics of JSON lines there
// (package emf), so that a line of another form, or one that a client wrote, would be believed.
package lambdalog

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/aws/smithy-go/logging"
)

// New returns a logger that writes JSON lines to standard output. Package log and slog's default write by it too, which aws-lambda-go and
// net/http use. Without that they print a client's line ends as they are.
func New() *slog.Logger {
	logger := slog.New(slog.NewJSONHandler(os.Stdout, nil))
	slog.SetDefault(logger)
	return logger
}

// SDK is for config.WithLogger. By itself the AWS SDK writes plain lines to standard error, past the two defaults that New sets.
func SDK(logger *slog.Logger) logging.Logger {
	return logging.LoggerFunc(func(class logging.Classification, format string, values ...any) {
		logger.Warn("AWS SDK", "class", string(class), "said", fmt.Sprintf(format, values...))
	})
}
