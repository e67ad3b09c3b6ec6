/*
 * Hops ③④: commits, the replication slot, walrelay, and the stream. A fault may come at any time and any
 * number of times, so nothing counts faults.
 *
 * EVENTS commit, and RELAYS relays share one slot. With SCHEMA, somebody takes outbox out of its
 * publication and puts it back. With PURGE, retention deletes rows. With COMMIT_LOG, a commit is in the WAL
 * before the server takes it for one.
 */
#include "stream.pml"

#ifndef EVENTS
#define EVENTS 3
#endif
#ifndef RELAYS
#define RELAYS 1
#endif
#if EVENTS == 1
#define FOR_EACH_EVENT(option) option(0)
#elif EVENTS == 2
#define FOR_EACH_EVENT(option) option(0) option(1)
#elif EVENTS == 3
#define FOR_EACH_EVENT(option) option(0) option(1) option(2)
#elif EVENTS == 4
#define FOR_EACH_EVENT(option) option(0) option(1) option(2) option(3)
#else
#define FOR_EACH_EVENT(option) option(0) option(1) option(2) option(3) option(4)
#endif

/* Events 1 and 2 are one transaction. A position between them is inside of it. */
#define COMMITTED(position) ((position) != 2 || EVENTS < 3)
#define NONE    15
#define UNKNOWN 3

/* The server. A position of the WAL is the number of events before it. */
byte wal;                  /* its end */
#ifdef COMMIT_LOG
byte settled;              /* events before it are committed for everybody */
#else
#define settled wal
#endif
byte unpublished;          /* events whose insert no slot sends */
byte purged;               /* events whose rows retention deleted */
byte slot = NONE;          /* the position that the slot has confirmed; NONE when there is no slot */
byte streaming, loading;   /* the relay whose session streams from the slot, or has the lock of the load; 0 is none */
byte mark = NONE;          /* where the relay wrote into the WAL that inserts are missing */

/* The publication. Decoding knows a change from its commit on, and other sessions a moment later. */
bool absent;               /* inserts that commit now are not published */
bool changing;             /* an open transaction changes it: a lock that every session sees */
byte publication;          /* what sessions see: 0 good, 1 without outbox, 2 good again */
byte knows[RELAYS + 1] = UNKNOWN;   /* the publication at a relay's latest look, until the process ends */
bool doubt;                /* undone, and no look has noticed it yet */

#if defined(SCHEMA) && !defined(LOOK_ONLY_AT_START)
#define LOOKS              /* without a schema change no look would find anything */
#endif

/* The stream. A call that the relay gave up, or died in, may still arrive. */
byte sent, arrived;

/* Rules 2 and 3: what the slot has passed is on the stream, or the slot's next reader gets the mark. */
#define NOTHING_LOST (slot == NONE || (arrived & BELOW(slot)) == BELOW(slot) || (mark != NONE && mark >= slot))
/* Rule 9: a row is deleted when its event is on the stream. */
#define NO_ONLY_COPY_DELETED ((arrived & BELOW(purged)) == BELOW(purged))

#include "server.pml"

/*
 * The pipeline. A record is sent when no older one of its aggregate is held, and nothing of the aggregate
 * is unanswered. A call of many records is many of these steps.
 */
#ifdef RETRY_ONLY_THE_FAILED
#define BEFORE_IT(e) (OLDER(e) & held & ~failed)
#else
#define BEFORE_IT(e) (OLDER(e) & held)
#endif
#define PIPELINE(e) \
  :: atomic { HAS(held, e) && BEFORE_IT(e) == 0 && (unanswered & SAME(e)) == 0 -> \
       unanswered = unanswered | BIT(e); sent = sent | BIT(e); printf("④  relay %d sends %c%d\n", me, EVENT(e)) } \
  :: atomic { HAS(unanswered, e) && HAS(arrived, e) -> \
       unanswered = unanswered & ~BIT(e); held = held & ~BIT(e); printf("④  relay %d hears that %c%d was accepted\n", me, EVENT(e)) } \
  :: atomic { HAS(unanswered, e) -> \
       unanswered = unanswered & ~BIT(e); NOTE_FAILED(e); printf("④  relay %d hears that %c%d failed, or nothing\n", me, EVENT(e)) }
#ifdef RETRY_ONLY_THE_FAILED
#define NOTE_FAILED(e) failed = failed | BIT(e)
#else
#define NOTE_FAILED(e) skip
#endif

/* A look at the publication finds that inserts may be missing from the stream: walrelay's Relay.missed. */
#define MISSED (publication == 1 || (knows[me] != UNKNOWN && knows[me] != publication))
inline stop_with_mark() {
  mark = (mark == NONE -> wal : mark); doubt = false;
  printf("③  relay %d sees that inserts may be missing, marks the WAL at position %d and stops\n", me, mark);
  goto stops
}

/* The position up to which all was accepted: that of the last commit, or what a keepalive told while nothing was on its way. */
inline set_position() {
  position = read;
#ifndef CONFIRM_BEFORE_PUT
  do
  :: position > slot && ((held & BELOW(position)) != 0 || !COMMITTED(position)) -> position--
  :: else -> break
  od;
#endif
  position = (position < proven -> position : proven)
}

#define CONFIRM \
  :: d_step { streaming == me && (slot < read && slot < proven || draining) -> \
       set_position(); \
       if \
       :: position > slot -> slot = position; printf("③  relay %d confirms position %d\n", me, slot) \
       :: else \
       fi; \
       position = 0; \
       assert(NOTHING_LOST) }
#define KILL \
  :: atomic { !doubt -> knows[me] = UNKNOWN; printf("③  relay %d is killed\n", me); goto session }
#define NOTICES(session_of) \
  :: atomic { session_of != me -> printf("③  relay %d notices that its session has ended\n", me); goto session }

/* A walrelay, which is started again whenever it ends. */
proctype relay(byte me) {
  byte held, unanswered, failed;   /* the pipeline's records */
  byte read;       /* the session's position in the WAL, or the load's snapshot */
  byte noted;      /* by a look that goes on; NONE between looks */
  byte proven;     /* every insert before it was published */
  byte before;     /* the publication before the load */
  byte position;   /* that is confirmed */
  bool draining;

session:
  atomic {
    held = 0; unanswered = 0; failed = 0; read = 0; noted = NONE; proven = 0; before = 0; position = 0; draining = false;
    streaming = (streaming == me -> 0 : streaming);
    loading = (loading == me -> 0 : loading)
  };
endstandby:
  if   /* else it stands by */
  :: slot == NONE && loading == 0 -> goto load
  :: slot != NONE && streaming == 0
  fi;

  /* The first look of a session does not prove a position. In doubt no other relay takes over, see schema. */
  if
  :: slot == NONE -> goto session
  :: atomic { slot != NONE && MISSED -> stop_with_mark() }
  :: atomic { slot != NONE && !MISSED && !doubt -> knows[me] = publication }
  fi;
  if
  :: atomic { slot == NONE || streaming != 0 -> goto session }
  :: atomic { slot != NONE && streaming == 0 -> streaming = me; noted = NONE;
#ifdef START_AT_CURRENT_LSN
       read = wal;
#else
       read = slot;
#endif
#ifndef LOOKS
       proven = EVENTS;
#endif
       printf("③  relay %d streams from position %d; the slot has confirmed %d\n", me, read, slot) }
  fi;
  do
  :: atomic { streaming == me && read < wal && mark != read ->
       if
       :: HAS(unpublished, read) -> printf("③  relay %d is not sent %c%d\n", me, EVENT(read))
       :: else -> held = held | BIT(read); printf("③  relay %d reads %c%d\n", me, EVENT(read))
       fi;
       read++ }
  :: atomic { streaming == me && mark == read -> printf("③  relay %d reads the mark and stops\n", me); goto stops }
  FOR_EACH_EVENT(PIPELINE)
#ifdef LOOKS
  :: atomic { noted == NONE && proven < wal -> noted = wal; printf("③  relay %d notes position %d and looks at the publication\n", me, noted) }
  :: atomic { noted != NONE && MISSED -> stop_with_mark() }
  :: atomic { noted != NONE && !MISSED ->
       if
       :: changing -> printf("③  relay %d sees an open change\n", me)
       :: else -> proven = noted; printf("③  relay %d has proven position %d\n", me, proven)
       fi;
       noted = NONE }
#endif
  CONFIRM
  NOTICES(streaming)
  KILL
  :: atomic { streaming == me -> printf("③  relay %d meets an error in the WAL, or is told to stop\n", me); draining = true; break }
  od;

#ifndef NO_DRAIN_ON_ERROR
  do
  FOR_EACH_EVENT(PIPELINE)
  NOTICES(streaming)
  KILL
  :: atomic { noted = wal; printf("③  relay %d has drained, or its time is up\n", me); break }
  od;
#ifdef LOOKS
  if
  :: atomic { MISSED -> stop_with_mark() }
  :: atomic { !MISSED -> proven = (changing -> proven : noted) }
  fi;
#endif
  if
  CONFIRM
  NOTICES(streaming)
  fi;
#endif
  /* What stands before an error in the WAL is confirmed. Else every session sends it again and gets no further. */
  atomic {
    printf("③  relay %d ends its session; the slot has confirmed %d\n", me, slot);
    if
    :: streaming == me -> set_position(); assert(slot >= position)
    :: else
    fi;
    goto session
  };

load:   /* Rule 3. The lock, the temporary slot and its snapshot belong to one session. */
  if
  :: atomic { doubt && slot != NONE -> goto session }
  :: atomic { !(doubt && slot != NONE) && publication == 1 -> goto stops }
  :: atomic { !(doubt && slot != NONE) && publication != 1 -> knows[me] = publication }
  fi;
  if
  :: atomic { slot != NONE || loading != 0 -> goto session }
  :: atomic { slot == NONE && loading == 0 -> loading = me; before = publication; printf("③  relay %d has the lock of the load\n", me) }
  fi;
  if
#ifdef COMMIT_LOG
  :: atomic { loading == me -> read = wal; printf("③  relay %d has the snapshot at position %d\n", me, read) }
  NOTICES(loading)
  fi;
  if
#ifdef LOAD_UNSETTLED
  :: atomic { loading == me ->
#else
  :: atomic { loading == me && settled >= read ->
#endif
#else
  :: atomic { loading == me -> read = wal;
#endif
       /* A row that is read before its commit is settled is lost to every reader. */
       held = BELOW((settled < read -> settled : read)) & ~BELOW(purged);
       mark = NONE; doubt = false;   /* what was missing is in the snapshot */
       printf("③  relay %d loads the rows of the snapshot at position %d\n", me, read) }
  NOTICES(loading)
  fi;
  do
  FOR_EACH_EVENT(PIPELINE)
  NOTICES(loading)
  KILL
  :: atomic { held == 0 -> break }
  od;
#ifdef LOOKS
  if
  :: atomic { publication == 1 || changing || publication != before -> printf("③  relay %d loads again, because the publication was changed\n", me); goto session }
  :: atomic { publication != 1 && !changing && publication == before -> skip }
  fi;
#endif
  if
  KILL
  :: atomic { loading != me || slot != NONE -> printf("③  relay %d cannot copy its temporary slot\n", me); goto session }
  :: atomic { loading == me && slot == NONE ->
#ifdef LOAD_WITHOUT_SNAPSHOT
       read = wal;
#endif
       slot = read; printf("③  relay %d makes the slot, at position %d\n", me, slot);
       assert(NOTHING_LOST); goto session }
  fi;

stops:   /* A person starts it again. */
  atomic { knows[me] = UNKNOWN; goto session }
}

init {
  byte n = 1;
  atomic {
    run commits(); run kinesis(); run server();
#ifdef COMMIT_LOG
    run commit_log();
#endif
#ifdef SCHEMA
    run schema();
#endif
#ifdef PURGE
    run retention();
#endif
    do
    :: n <= RELAYS -> run relay(n); n++
    :: else -> break
    od
  }
}
