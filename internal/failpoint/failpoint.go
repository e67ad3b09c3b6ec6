// Package failpoint marks the exact places at which a test kills a process. They are between two steps whose order keeps every event.
//
// A place costs the path one line, failpoint.Hit(failpoint.RelayBeforePut), and in a release build nothing at all. Only with
// the build tag failpoints does Hit look whether FAILPOINT names its point, or the folder FAILPOINT_DIR has a file of its name, and
// end the process there with SIGKILL, so that nothing is tidied up.
package failpoint

// Point is a place in the path's code. Its text is also what FAILPOINT takes.
type Point string

// The points, in the order in which an event passes them.
const (
	APIBeforeCommit  Point = "failpoint-api-before-commit"  // of a change in one round trip
	APIInTransaction Point = "failpoint-api-in-transaction" // before the commit of one in several
	APIAfterCommit   Point = "failpoint-api-after-commit"

	RelayBeforeSlotCopy Point = "failpoint-relay-before-slot-copy"
	RelayAfterSlotCopy  Point = "failpoint-relay-after-slot-copy"
	RelayBeforePut      Point = "failpoint-relay-before-put"
	RelayAfterPut       Point = "failpoint-relay-after-put"
	RelayBeforeConfirm  Point = "failpoint-relay-before-confirm"
	RelayAfterConfirm   Point = "failpoint-relay-after-confirm"

	ConsumerBeforePublish Point = "failpoint-consumer-before-publish"
	ConsumerAfterPublish  Point = "failpoint-consumer-after-publish"
	ConsumerBeforePark    Point = "failpoint-consumer-before-park"
	ConsumerAfterPark     Point = "failpoint-consumer-after-park"
	ConsumerBeforeAnswer  Point = "failpoint-consumer-before-answer"
)
