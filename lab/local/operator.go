package local

import (
	"os"
	"path/filepath"
	"strings"
)

// OperatorEnv is the set-up that outboxctl takes (docs/outboxctl.md) for this path, as NAME=value. Where the bus is the user's own,
// its log group has to be told; without it outboxctl says what is missing.
func (p *Path) OperatorEnv() []string {
	env := append([]string{"DATABASE_URL=" + p.DatabaseURL, "SLOT_NAME=" + p.slot}, p.Services.env()...)
	if logs := p.metricsLogs(); logs != "" {
		env = append(env, "METRICS_LOGS="+logs)
	}
	return env
}

// metricsLogs are the files with the lines that CloudWatch would make metrics of: that of `make dev` itself and the relay's. Absolute:
// outboxctl may run anywhere.
func (p *Path) metricsLogs() string {
	dir, err := filepath.Abs(filepath.Dir(p.Relay.Log()))
	if err != nil {
		return ""
	}
	return strings.Join([]string{filepath.Join(dir, "dev.log"), filepath.Join(dir, filepath.Base(p.Relay.Log()))}, string(os.PathListSeparator))
}
