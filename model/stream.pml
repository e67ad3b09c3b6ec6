/*
 * The stream's contract, between the relay (③④) and the consumer (⑤⑥). relay.pml asserts it, and
 * consumer.pml starts from it.
 *
 * Event e is the e-th that committed. The events of two aggregates alternate, so events 0, 2, 4 are
 * versions 1, 2, 3 of aggregate a, and 1, 3, 5 those of aggregate b. A set of events is a byte with
 * a bit for each.
 */
#define BIT(e)      (1 << (e))
#define BELOW(n)    (BIT(n) - 1)                              /* events 0 to n-1 */
#define AGGREGATE(e) ((e) & 1)
#define SAME(e)     (AGGREGATE(e) -> 170 : 85)            /* events of the same aggregate */
#define OLDER(e)    (SAME(e) & BELOW(e))
#define HAS(set, e) (((set) & BIT(e)) != 0)

/* The first copy of event e may come where copies of these events are. Duplicates may always come. */
#define IN_ORDER(e, there) ((OLDER(e) & (there)) == OLDER(e))

/* How a story names an event: printf("%c%d", EVENT(e)) prints a1, b1, a2, ... */
#define EVENT(e) 'a' + AGGREGATE(e), (e) / 2 + 1
