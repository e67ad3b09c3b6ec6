// Package contracts has the description of the events for programs that show it.
package contracts

import _ "embed"

// AsyncAPI describes the bus and the events on it, as AsyncAPI 3. It is generated from the contracts.
//
//go:embed asyncapi.yaml
var AsyncAPI []byte
