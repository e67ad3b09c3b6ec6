/*
 * Hops ⑤⑥: the stream, Lambda, the consumer, the bus, the failure queue, redrive, and a subscriber.
 * A fault may come at any time and any number of times, so nothing counts faults.
 *
 * The stream begins with RECORDS records of EVENTS events, in every order that its contract allows, and every
 * choice of events is poison. Redrive appends one record. LANES is the parallelization factor of Lambda: with two,
 * each aggregate has an invocation of its own. With SUBSCRIBER, a subscriber with an inbox gets the events.
 */
#include "stream.pml"

#ifndef EVENTS
#define EVENTS 3
#endif
#ifndef RECORDS
#define RECORDS 3
#endif
#ifndef LANES
#define LANES 1
#endif
#if EVENTS == 2
#define FOR_EACH_EVENT(option) option(0) option(1)
#elif EVENTS == 3
#define FOR_EACH_EVENT(option) option(0) option(1) option(2)
#else
#define FOR_EACH_EVENT(option) option(0) option(1) option(2) option(3)
#endif
#if RECORDS == 2
#define FOR_EACH_RECORD(option) option(0) option(1) option(2)
#elif RECORDS == 3
#define FOR_EACH_RECORD(option) option(0) option(1) option(2) option(3)
#elif RECORDS == 4
#define FOR_EACH_RECORD(option) option(0) option(1) option(2) option(3) option(4)
#else
#define FOR_EACH_RECORD(option) option(0) option(1) option(2) option(3) option(4) option(5)
#endif

byte record[RECORDS + 1];          /* the event of each record */
byte length;                       /* records on the stream */
byte finished;                     /* records that Lambda does not deliver again. Its checkpoint is the first other one */
byte undecodable, refused;         /* events that are poison: before the consumer calls the bus, or by the bus's answer */
bool mended;                       /* a deployment can publish what was poison */
byte sent;                         /* events in a call that was made */
byte bus;                          /* events that the bus has accepted */
byte failure_queue;                /* events that are parked */
byte held;                         /* of them, those whose message redrive holds */
byte inbox, twice;                 /* events in the subscriber's inbox, and those that it counted twice */

#define POISON (undecodable | refused)
#define POISON_NOW(e) (!mended && HAS(POISON, e))

/* Rules 5 and 6: each event is on the bus, in the failure queue, or on the stream and delivered again. */
inline nothing_lost() {
  delivered = 0;
  for (r : 0 .. length - 1) { delivered = (HAS(finished, r) -> delivered : delivered | BIT(record[r])) }
  assert(((bus | failure_queue | held | delivered) & BELOW(EVENTS)) == BELOW(EVENTS));
  delivered = 0; r = 0
}

/* A call that was made arrives at any time later, or never. Rule 4 is that first copies are in order. Poison is out of order. */
#define ACCEPTED(e) \
  :: atomic { HAS(sent & ~bus, e) && !(!mended && HAS(refused, e)) -> printf("⑥  the bus accepts %c%d\n", EVENT(e)); \
       assert(IN_ORDER(e, bus | POISON)); bus = bus | BIT(e) }
proctype eventbridge() {
end:
  do
  FOR_EACH_EVENT(ACCEPTED)
  od
}

/* The bus delivers at least once. Rule 8: a subscriber with an inbox counts an event once. */
#ifdef INBOX_OFF
#define KNOWN(e) false
#else
#define KNOWN(e) HAS(inbox, e)
#endif
#define DELIVERED(e) \
  :: atomic { HAS(bus, e) && !KNOWN(e) -> printf("⑥  the subscriber counts %c%d\n", EVENT(e)); \
       twice = twice | (inbox & BIT(e)); inbox = inbox | BIT(e); assert(twice == 0) }
proctype subscriber() {
end:
  do
  FOR_EACH_EVENT(DELIVERED)
  od
}

/* An operator mends the cause and redrives a message. It is deleted after the stream has its record. */
#ifdef DELETE_BEFORE_PUT
#define TAKE(e) failure_queue = failure_queue & ~BIT(e); nothing_lost()
#else
#define TAKE(e) failure_queue = failure_queue & ~BIT(e); held = BIT(e)
#endif
#define REDRIVE(e) \
  :: atomic { HAS(failure_queue, e) && length == RECORDS -> TAKE(e); printf("⑥  redrive takes the message of %c%d\n", EVENT(e)) }; \
     if \
     :: atomic { record[length] = e; length++; printf("④  redrive puts %c%d on the stream\n", EVENT(e)) }; \
        if \
        :: atomic { held = 0; nothing_lost(); printf("⑥  redrive deletes the message\n") } \
        :: atomic { failure_queue = failure_queue | held; held = 0; printf("⑥  redrive is killed, and the message comes back\n") } \
        fi \
     :: atomic { failure_queue = failure_queue | held; held = 0; printf("⑥  redrive is killed, and the message comes back\n") } \
     fi
proctype operator() {
  byte r, delivered;
end:
  do
  :: atomic { !mended && POISON != 0 -> mended = true; printf("⑤  the cause of the poison is mended\n") }
  FOR_EACH_EVENT(REDRIVE)
  od
}

/* An entry goes to the bus when nothing of its aggregate is before it in the batch (rule 4). */
#define LANE(r) (LANES == 1 || AGGREGATE(record[r]) == me)
#define IN_BATCH(r) ((r) < upto && LANE(r) && !HAS(finished, r))
#ifdef AGGREGATE_IN_TWO_LANES
#define FIRST(r) true
#else
#define SETTLED(r, q) ((q) >= (r) || !IN_BATCH(q) || HAS(done | poison, q) || AGGREGATE(record[q]) != AGGREGATE(record[r]))
#if RECORDS == 2
#define FIRST(r) (SETTLED(r, 0) && SETTLED(r, 1))
#elif RECORDS == 3
#define FIRST(r) (SETTLED(r, 0) && SETTLED(r, 1) && SETTLED(r, 2))
#elif RECORDS == 4
#define FIRST(r) (SETTLED(r, 0) && SETTLED(r, 1) && SETTLED(r, 2) && SETTLED(r, 3))
#else
#define FIRST(r) (SETTLED(r, 0) && SETTLED(r, 1) && SETTLED(r, 2) && SETTLED(r, 3) && SETTLED(r, 4))
#endif
#endif
#ifdef IGNORE_FAILED_ENTRY_COUNT
#define SAID_YES(e) true
#else
#define SAID_YES(e) HAS(bus, e)
#endif
#define PUBLISH(r) \
  :: atomic { IN_BATCH(r) && r < decoded && !HAS(done | poison | unanswered, r) && FIRST(r) -> \
       unanswered = unanswered | BIT(r); sent = sent | BIT(record[r]); printf("⑥  the consumer sends %c%d\n", EVENT(record[r])) } \
  :: atomic { HAS(unanswered, r) && SAID_YES(record[r]) -> \
       unanswered = unanswered & ~BIT(r); done = done | BIT(r); printf("⑥  the consumer takes %c%d for accepted\n", EVENT(record[r])) } \
  :: atomic { HAS(unanswered, r) && !mended && HAS(refused, record[r]) -> \
       unanswered = unanswered & ~BIT(r); poison = poison | BIT(r); printf("⑥  the bus refuses the content of %c%d\n", EVENT(record[r])) } \
  :: atomic { HAS(unanswered, r) -> unanswered = unanswered & ~BIT(r); printf("⑥  the consumer hears that %c%d failed, or nothing\n", EVENT(record[r])) }

#define KILL \
  :: atomic { printf("⑤  the invocation is killed or panics: the whole batch comes again\n"); goto idle }

/* One lane of Lambda, and the consumer that it invokes. */
proctype lambda(byte me) {
  byte upto, decoded;             /* the batch ends before record upto; a panic ends decoding before it */
  byte done, poison, unanswered;  /* records of the batch */
  byte p, first, r, delivered;    /* scratch */

idle:
  atomic { upto = 0; decoded = 0; done = 0; poison = 0; unanswered = 0; p = 0; first = 0 };
end:
  if
#ifdef LAMBDA_GIVES_UP
  :: atomic { finished != BELOW(length) -> p = 0;
       do
       :: HAS(finished, p) -> p++
       :: else -> break
       od;
       finished = finished | BIT(p); printf("⑤  Lambda gives up record %d, %c%d\n", p, EVENT(record[p])); nothing_lost(); goto idle }
#endif
  :: atomic { finished != BELOW(length) ->
       upto = length;
       do
       :: (BELOW(upto - 1) & ~finished) != 0 -> upto--
       :: break
       od;
       /* The records of the batch are decoded, or those before a panic. */
       for (p : 0 .. upto - 1) {
         if
         :: IN_BATCH(p) && !mended && HAS(undecodable, record[p]) ->
#ifdef SKIP_POISON_SILENTLY
              done = done | BIT(p)
#else
              poison = poison | BIT(p)
#endif
         :: else
         fi
       };
       decoded = upto; p = 0;
       printf("⑤  Lambda invokes the consumer with the records before %d\n", upto) }
  fi;

  do
  FOR_EACH_RECORD(PUBLISH)
  KILL
  :: atomic { unanswered = 0; printf("⑤  all is settled, or the time is up\n"); break }
  od;

  /* Poison below the lowest failure is parked, and counts when the queue has accepted it (rule 6). */
park:
  atomic {
    do
    :: p < upto && (!IN_BATCH(p) || HAS(done, p)) -> p++
    :: p == upto || (IN_BATCH(p) && !HAS(done, p)) -> break
    od;
    if
    :: p == upto || !HAS(poison, p) -> goto answer
    :: else -> assert(HAS(POISON, record[p]))
    fi
  };
  if
  :: atomic { failure_queue = failure_queue | BIT(record[p]); done = done | BIT(p); printf("⑥  %c%d is parked\n", EVENT(record[p])); goto park }
  :: atomic { failure_queue = failure_queue | BIT(record[p]); printf("⑥  %c%d is parked, and the answer is lost\n", EVENT(record[p])); goto unanswered_queue }
  :: atomic { printf("⑥  the failure queue does not answer for %c%d\n", EVENT(record[p])); goto unanswered_queue }
  KILL
  fi;
unanswered_queue:
#ifdef PARK_UNANSWERED
  atomic { done = done | BIT(p); goto park };
#endif

  /* The answer names the lowest record that is not done. Lambda delivers it and all after it again (rule 5). */
answer:
  atomic {
    first = upto;
    for (p : 0 .. upto - 1) {
      if
#ifdef WRONG_IDENTIFIER
      :: IN_BATCH(p) && !HAS(done, p) -> first = p
#else
      :: IN_BATCH(p) && !HAS(done, p) && p < first -> first = p
#endif
      :: else
      fi
    };
    printf("⑤  the consumer answers: all before record %d is done\n", first);
    delivered = 0;
    for (p : 0 .. upto - 1) { delivered = (p < first && IN_BATCH(p) -> delivered | BIT(p) : delivered) };
    finished = finished | delivered;
    nothing_lost();
    goto idle
  }
}

/* Lambda reads the shard again from its checkpoint, so that records that were finished after it come again. */
proctype restarts() {
  byte p;
end:
  do
  :: atomic { (finished & (finished + 1)) != 0 ->   /* a record before a finished one is not finished */
       do
       :: HAS(finished, p) -> p++
       :: else -> break
       od;
       finished = finished & BELOW(p); printf("⑤  Lambda reads again from record %d\n", p); p = 0 }
  od
}

/* The first copy of an event comes where the contract allows it, and a duplicate anywhere. */
#define ARRIVES(e) \
  :: length < RECORDS && IN_ORDER(e, there) && (RECORDS - length > missing || !HAS(there, e)) -> \
       missing = (HAS(there, e) -> missing : missing - 1); \
       there = there | BIT(e); record[length] = e; length++; printf("④  the stream has %c%d\n", EVENT(e))

init {
  byte e, there, missing = EVENTS;
  atomic {
    do
    FOR_EACH_EVENT(ARRIVES)
    :: length == RECORDS -> break
    od;
    for (e : 0 .. EVENTS - 1) {
      if
      :: skip
      :: undecodable = undecodable | BIT(e); printf("⑤  %c%d cannot be decoded\n", EVENT(e))
      :: refused = refused | BIT(e); printf("⑥  the bus will refuse the content of %c%d\n", EVENT(e))
      fi
    };
    e = 0; there = 0;
    run eventbridge(); run operator(); run lambda(0);
#if LANES > 1
    run lambda(1); run restarts();
#endif
#ifdef SUBSCRIBER
    run subscriber();
#endif
    skip
  }
}
