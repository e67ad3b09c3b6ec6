package labtest

import (
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// TwoPorts returns the first of two ports of 127.0.0.1 that are beside each other and that nobody has. A program may listen on them
// much later. So they are below the ports that the system gives to connections and to whoever listens on port 0 (32768 on Linux, 49152
// on macOS), any of which may be gone by then.
func TwoPorts(t testing.TB) int {
	t.Helper()
	for range 100 {
		port := 15_000 + 2*rand.IntN(5_000) //nolint:gosec // any will do
		if isFree(port) && isFree(port+1) {
			return port
		}
	}
	t.Fatal("no two free ports beside each other")
	return 0
}

func isFree(port int) bool {
	listener, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		return false
	}
	_ = listener.Close()
	return true
}
