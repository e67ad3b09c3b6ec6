package sim

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"
)

// column returns the type and the text of a value.
func column(value any) (oid uint32, text []byte) {
	switch v := value.(type) {
	case string:
		return pgtype.TextOID, []byte(v)
	case bool:
		return pgtype.BoolOID, []byte(strconv.FormatBool(v)[:1])
	case int32:
		return pgtype.Int4OID, []byte(strconv.FormatInt(int64(v), 10))
	case int64:
		return pgtype.Int8OID, []byte(strconv.FormatInt(v, 10))
	case uuid.UUID:
		return pgtype.UUIDOID, []byte(v.String())
	case json.RawMessage:
		return pgtype.JSONBOID, v
	case time.Time:
		return pgtype.TimestamptzOID, []byte(textTime(v))
	case *string:
		if v == nil {
			return pgtype.TextOID, nil
		}
		return pgtype.TextOID, []byte(*v)
	}
	panic(fmt.Sprintf("sim: no column can be made of a %T", value))
}
