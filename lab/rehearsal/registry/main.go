// Command registry is the rehearsal's container registry, in memory. Out: its address on standard output, then nothing until it is
// killed.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, "registry:", err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stdout, listener.Addr())
	server := http.Server{Handler: registry.New(registry.Logger(log.New(os.Stderr, "", 0))), ReadHeaderTimeout: time.Minute}
	fmt.Fprintln(os.Stderr, "registry:", server.Serve(listener))
}
