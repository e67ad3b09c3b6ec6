package sim

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgproto3"

	"rds-outbox-demo/dbgen"
	"rds-outbox-demo/internal/pgsession"
	"rds-outbox-demo/internal/rdsdb"
)

// login returns the way from a relay's process to the modelled server.
func (w *world) login(p *process) *rdsdb.Login {
	config, err := pgsession.ParseConfig("postgres://relay:secret@127.0.0.1:5432/" + database + "?sslmode=disable&default_query_exec_mode=simple_protocol")
	if err != nil {
		panic(err)
	}
	config.RuntimeParams = map[string]string{} // drops what the environment says
	config.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
	config.DialFunc = func(context.Context, string, string) (net.Conn, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if p.dead {
			return nil, errReset
		}
		w.wal.sessions++
		c := newConn(w.wal.sessions)
		p.conns = append(p.conns, c)
		go (&session{world: w, process: p, conn: c, backend: pgproto3.NewBackend(serverSide{c}, serverSide{c})}).serve()
		return c, nil
	}
	return rdsdb.NewLogin(config, "walrelay")
}

// maxLatency is the longest time that a message takes.
const maxLatency = 2 * time.Millisecond

// session is one connection at the server. Its goroutine answers one message after the other.
type session struct {
	*world
	process  *process
	conn     *conn
	backend  *pgproto3.Backend
	inTx     bool
	snapshot []dbgen.Outbox
}

func (s *session) serve() {
	defer s.ends()
	startup, err := s.backend.ReceiveStartupMessage()
	if _, ok := startup.(*pgproto3.StartupMessage); err != nil || !ok {
		return
	}
	time.Sleep(s.delay(100*time.Microsecond, maxLatency, "startup", s.conn.number))
	s.backend.Send(&pgproto3.AuthenticationOk{})
	for _, p := range []string{"server_version=17.6", "server_encoding=UTF8", "client_encoding=UTF8", "standard_conforming_strings=on", "TimeZone=UTC", "DateStyle=ISO, MDY"} {
		name, value, _ := strings.Cut(p, "=")
		s.backend.Send(&pgproto3.ParameterStatus{Name: name, Value: value})
	}
	s.backend.Send(&pgproto3.BackendKeyData{ProcessID: uint32(s.conn.number), SecretKey: []byte{0, 0, 0, 1}})
	s.ready()
	for {
		message, err := s.backend.Receive()
		if err != nil {
			return
		}
		switch message := message.(type) {
		case *pgproto3.Query:
			// Without the statement's text a change of it would change each kept schedule.
			time.Sleep(s.delay(100*time.Microsecond, maxLatency, "query", s.conn.number))
			s.answer(message.String)
		case *pgproto3.CopyData:
			s.receive(message.Data)
		case *pgproto3.Terminate:
			return
		}
	}
}

// ends lets go of what belongs to the session. The server notices only some time later that its client is gone.
func (s *session) ends() {
	serverSide{s.conn}.hangUp()
	s.mu.Lock()
	s.changed.Broadcast() // sendWAL ends
	s.mu.Unlock()
	least, most := maxLatency, 2*maxLatency // what was sent before the end arrives
	if s.conn.isCut() {
		most = 1500 * time.Millisecond
	}
	time.Sleep(s.delay(least, most, "notice", s.conn.number))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wal.slot != nil && s.wal.slot.reader == s.conn {
		s.wal.slot.reader = nil
	}
	if s.wal.loading == s.conn {
		s.wal.loading = nil
	}
	delete(s.wal.temporary, s.conn)
}

func (s *session) ready() {
	status := byte('I')
	if s.inTx {
		status = 'T'
	}
	s.backend.Send(&pgproto3.ReadyForQuery{TxStatus: status})
	_ = s.backend.Flush() // the next Receive fails
}

func (s *session) fails(code, message string) {
	s.backend.Send(&pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: code, Message: message})
	s.ready()
}

// rows answers a query with the fields of structs, or with single values.
func (s *session) rows(tag string, rows ...any) {
	for i, row := range rows {
		fields, values := columnsOf(row)
		if i == 0 {
			s.backend.Send(&pgproto3.RowDescription{Fields: fields})
		}
		s.backend.Send(&pgproto3.DataRow{Values: values})
	}
	s.backend.Send(&pgproto3.CommandComplete{CommandTag: fmt.Appendf(nil, "%s %d", tag, len(rows))})
	s.ready()
}

// none answers without a row like this one.
func (s *session) none(row any) {
	fields, _ := columnsOf(row)
	s.backend.Send(&pgproto3.RowDescription{Fields: fields})
	s.rows("SELECT")
}

var queryName = regexp.MustCompile(`^-- name: (\w+)`)
var literal = regexp.MustCompile(` '((?:[^']|'')*)' `)

// answer answers a statement. The names are those of sql/queries.
func (s *session) answer(sql string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var args []string
	for _, m := range literal.FindAllStringSubmatch(sql, -1) {
		args = append(args, m[1])
	}
	name := ""
	if m := queryName.FindStringSubmatch(sql); m != nil {
		name = m[1]
	}
	switch name {
	case "":
		s.command(sql)
	case "SettingGet":
		s.rows("SELECT", map[string]string{
			"server_version_num": "170006", "in_hot_standby": "off", "wal_level": "logical", "wal_sender_timeout": "60000",
		}[args[0]])
	case "PublicationLook":
		s.rows("SELECT", dbgen.PublicationLookRow{
			RelationID: relationID, Logged: true, Published: true, Inserts: true, Member: s.wal.member, Identity: fmt.Sprint(s.wal.identity),
		})
	case "SlotGet":
		if s.wal.slot == nil {
			s.none(dbgen.SlotGetRow{})
			return
		}
		s.rows("SELECT", dbgen.SlotGetRow{Plugin: "pgoutput", Database: database, WalStatus: "reserved", Active: s.wal.slot.reader != nil, Failover: "true"})
	case "SlotUser":
		user := int32(0)
		for c := range s.wal.temporary {
			if strings.HasSuffix(args[0], fmt.Sprintf("_%d", c.number)) {
				user = int32(c.number)
			}
		}
		if s.wal.slot != nil && s.wal.slot.reader != nil && args[0] == slotName {
			user = int32(s.wal.slot.reader.number)
		}
		s.rows("SELECT", user)
	case "SlotHealth":
		s.rows("SELECT", dbgen.SlotHealthRow{Plugin: "pgoutput", Database: database, Active: true, WalStatus: "reserved", RestartLSN: "0/1000000", SafeWalSize: -1})
	case "SlotPromotion":
		s.rows("SELECT", dbgen.SlotPromotionRow{Major: 17, WalLevel: "logical", Found: true, Plugin: "pgoutput", Failover: true})
	case "StandbySlots":
		s.none(dbgen.StandbySlotsRow{})
	case "WALInsertPosition":
		s.rows("SELECT", s.wal.end.String())
	case "MarkWAL":
		s.note("the relay marks the WAL")
		s.grow(entry{mark: slotName})
		s.rows("SELECT", s.wal.end.String())
	default:
		s.loadQuery(name, args)
	}
}

// loadQuery answers a statement of the load. The caller holds mu.
func (s *session) loadQuery(name string, args []string) {
	switch name {
	case "LoadSession", "SlotDrop":
		s.rows("SELECT", "")
	case "LoadLock":
		free := s.wal.loading == nil
		if free {
			s.wal.loading = s.conn
		}
		s.rows("SELECT", free)
	case "LoadUnsettled":
		s.none(dbgen.LoadUnsettledRow{})
	case "SessionBlocker":
		s.none(dbgen.SessionBlockerRow{})
	case "OutboxCount":
		s.rows("SELECT", int64(len(s.snapshot)))
	case "OutboxMisplaced":
		s.rows("SELECT", int64(0))
	case "OutboxPage":
		version, _ := strconv.ParseInt(args[2], 10, 64)
		var rows []any
		for _, row := range page(s.snapshot, args[1], version, 64) {
			rows = append(rows, row)
		}
		if len(rows) == 0 {
			s.none(dbgen.Outbox{})
			return
		}
		s.rows("SELECT", rows...)
	case "SlotCopy":
		if args[1] == slotName && s.wal.slot != nil {
			s.fails("42710", "replication slot exists")
			return
		}
		if args[1] == slotName {
			s.wal.slot, s.wal.trouble = &slot{confirmed: s.wal.temporary[s.conn]}, ""
			s.note("slot made at %s", s.wal.slot.confirmed)
		}
		s.rows("SELECT", "")
	default:
		panic("sim: no answer to query " + name)
	}
}

// command answers what is not in sql/queries. The caller holds mu.
func (s *session) command(sql string) {
	switch {
	case strings.HasPrefix(sql, "SELECT pg_catalog.set_config"):
		s.rows("SELECT", "")
	case strings.HasPrefix(sql, "IDENTIFY_SYSTEM"):
		s.rows("IDENTIFY_SYSTEM", identity{"7000000000000000000", 1, s.wal.end.String(), database})
	case strings.HasPrefix(sql, "begin"):
		s.inTx = true
		s.rows("BEGIN")
	case sql == "commit", sql == "rollback":
		s.inTx = false
		s.rows(strings.ToUpper(sql))
	case strings.HasPrefix(sql, "CREATE_REPLICATION_SLOT"):
		s.snapshot = append([]dbgen.Outbox(nil), s.wal.rows...)
		s.wal.temporary[s.conn] = s.wal.end
		s.note("load of %d rows begins at %s", len(s.snapshot), s.wal.end)
		s.rows("CREATE_REPLICATION_SLOT", created{"temporary", s.wal.end.String(), "", "pgoutput"})
	case strings.Contains(sql, "pg_create_logical_replication_slot"): // sabotage load-without-snapshot
		s.wal.slot = &slot{confirmed: s.wal.end}
		s.rows("SELECT", "")
	case strings.HasPrefix(sql, "START_REPLICATION"):
		s.startReplication(sql)
	default:
		panic("sim: no answer to " + sql)
	}
}

type identity struct {
	SystemID string
	Timeline int32
	XLogPos  string
	DBName   string
}

type created struct{ SlotName, ConsistentPoint, SnapshotName, OutputPlugin string }

var startLSN = regexp.MustCompile(`LOGICAL ([0-9A-F]+/[0-9A-F]+)`)

func (s *session) startReplication(sql string) {
	switch {
	case s.wal.slot == nil:
		s.fails("42704", "replication slot does not exist")
		return
	case s.wal.slot.reader != nil:
		s.fails("55006", "replication slot is active")
		return
	}
	from, err := pglogrepl.ParseLSN(startLSN.FindStringSubmatch(sql)[1])
	if err != nil {
		panic(err)
	}
	from = max(from, s.wal.slot.confirmed)
	s.wal.slot.reader, s.conn.sent = s.conn, from
	s.note("streaming from %s", from)
	s.backend.Send(&pgproto3.CopyBothResponse{})
	_ = s.backend.Flush()
	go s.sendWAL(s.conn, from)
}

// receive takes a status, which is on its way for a while. The relay may send two at one instant, or one, because two of its timers can
// end together. Two that are equal have one effect at one instant.
func (s *session) receive(data []byte) {
	if len(data) == 0 || data[0] != 'r' {
		return
	}
	flushed := pglogrepl.LSN(binary.BigEndian.Uint64(data[9:]))
	time.AfterFunc(s.delay(100*time.Microsecond, maxLatency, "status", s.conn.number, flushed), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.status(flushed)
	})
}

// status takes the position that the relay confirms, and answers with a keepalive. The caller holds mu.
func (s *session) status(flushed pglogrepl.LSN) {
	if s.wal.slot == nil || s.wal.slot.reader != s.conn || s.conn.isCut() {
		return
	}
	if flushed > s.wal.slot.confirmed {
		if _, struck := s.strike(KillBeforeConfirm); struck {
			s.end(s.process, "relay killed before its confirmation arrives")
			return
		}
		s.wal.slot.confirmed = flushed
		s.note("confirmed %s", flushed)
		if _, struck := s.strike(KillAfterConfirm); struck {
			s.end(s.process, "relay killed after its confirmation")
			return
		}
	}
	_, _ = serverSide{s.conn}.Write(s.keepalive(s.conn))
}

// columnsOf makes the columns of a row of a struct's fields, or of a value.
func columnsOf(row any) (fields []pgproto3.FieldDescription, values [][]byte) {
	add := func(name string, value any) {
		oid, text := column(value)
		fields = append(fields, pgproto3.FieldDescription{Name: []byte(name), DataTypeOID: oid, DataTypeSize: -1, TypeModifier: -1})
		values = append(values, text)
	}
	v := reflect.ValueOf(row)
	if v.Kind() != reflect.Struct {
		add("value", row)
		return fields, values
	}
	for field, value := range v.Fields() {
		add(field.Name, value.Interface())
	}
	return fields, values
}
