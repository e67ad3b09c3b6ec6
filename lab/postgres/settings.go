package postgres

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
)

// settings suit many parallel tests. They allow many connections, senders and slots, and little
// shared memory for each.
var settings = map[string]string{
	"listen_addresses":        "127.0.0.1",
	"unix_socket_directories": "", // its path may be too long, and 127.0.0.1 is enough
	"wal_level":               "logical",
	"max_connections":         "300",
	"max_wal_senders":         "60",
	"max_replication_slots":   "200",
	"shared_buffers":          "64MB",
	"max_wal_size":            "256MB",
	// Shared memory outside the data folder would stay for ever when the server is killed.
	"dynamic_shared_memory_type": "mmap",
	"timezone":                   "UTC",
	"log_timezone":               "UTC",
	"logging_collector":          "off", // the log is our standard error: its folder stays bounded
}

func arguments(cfg Config, port int) []string {
	all := maps.Clone(settings)
	all["port"] = strconv.Itoa(port)
	if !cfg.Durable {
		all["fsync"] = "off"
	}
	maps.Copy(all, cfg.Settings)
	args := []string{"-D", dataDir(cfg.Dir)} // first: owns() looks for it there
	for _, name := range slices.Sorted(maps.Keys(all)) {
		args = append(args, "-c", name+"="+all[name])
	}
	return args
}

// freePort is below the ports that the system gives to outgoing connections. One of those could
// take it while the server is stopped.
func freePort() (int, error) {
	var err error
	for range 100 {
		var listener net.Listener
		if listener, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(10_000))); err == nil {
			return listener.Addr().(*net.TCPAddr).Port, listener.Close()
		}
	}
	return 0, fmt.Errorf("finding a free port: %w", err)
}

func serverURL(password string, port int, db string) string {
	return fmt.Sprintf("postgres://%s:%s@127.0.0.1:%d/%s?sslmode=disable", superuser, password, port, db)
}
