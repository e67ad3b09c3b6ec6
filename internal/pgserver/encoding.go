package pgserver

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

// EncodingRemedy says what to do about an error of CheckEncoding.
const EncodingRemedy = "make a database WITH ENCODING 'UTF8' TEMPLATE template0, move the data there, and use that one"

// CheckEncoding refuses a database whose text is not UTF-8. LATIN1 cannot hold all that JSON may
// say. SQL_ASCII keeps any bytes without a check, and only a reader of the stream would notice that
// they are not text. The server sent its encoding when conn was opened.
func CheckEncoding(conn *pgconn.PgConn) error {
	switch encoding := conn.ParameterStatus("server_encoding"); encoding {
	case "UTF8":
		return nil
	case "":
		return errors.New("the server does not tell the encoding of the database: connect to PostgreSQL itself, not through a pooler")
	default:
		return fmt.Errorf("the database's encoding is %s: events are UTF-8, so it must be UTF8", encoding)
	}
}
