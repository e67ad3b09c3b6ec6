package bench

import (
	"os/exec"
	"path/filepath"
	"slices"
)

// tools are the paths of PostgreSQL's own programs that set the limit. A path is empty where the
// program is not installed.
type tools struct{ pgbench, recvlogical string }

// install tells how to get them.
const install = "install pgbench and pg_recvlogical (Debian: postgresql and postgresql-client)"

func findTools() tools { return tools{find("pgbench"), find("pg_recvlogical")} }

// find returns the program's path. It looks on the PATH, and then for the newest version where
// Debian's packages put it.
func find(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if len(found) == 0 {
		return ""
	}
	slices.Sort(found)
	return found[len(found)-1]
}
