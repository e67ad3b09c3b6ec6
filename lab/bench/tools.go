package bench

import (
	"os/exec"
	"path/filepath"
	"slices"
)

// tools are PostgreSQL's own programs that set the limit. Empty where they are not installed.
type tools struct{ pgbench, recvlogical string }

// install tells how to get them.
const install = "install pgbench and pg_recvlogical (Debian: postgresql and postgresql-client)"

func findTools() tools { return tools{find("pgbench"), find("pg_recvlogical")} }

// find looks on the PATH, and where Debian's packages put what is not on it: the newest version.
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
