package local

// OperatorEnv is the set-up that outboxctl takes (docs/outboxctl.md) for this path, as NAME=value. Where the bus is the user's own,
// its log group has to be told; without it outboxctl says what is missing.
func (p *Path) OperatorEnv() []string {
	return append([]string{"DATABASE_URL=" + p.DatabaseURL, "SLOT_NAME=" + p.slot}, p.Services.env()...)
}
