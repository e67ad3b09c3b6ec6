//go:build !failpoints

package failpoint

// Hit does nothing in a release build, and the compiler leaves nothing of it.
func Hit(Point) {}
