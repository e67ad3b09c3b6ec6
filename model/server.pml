/* What is around a relay: writers, Kinesis, the server's sessions, a schema change, retention. */

proctype commits() {
  do
  :: atomic { wal < EVENTS ->
       do
       :: if
          :: absent -> unpublished = unpublished | BIT(wal); printf("②  %c%d commits, and is not published\n", EVENT(wal))
          :: else -> printf("②  %c%d commits\n", EVENT(wal))
          fi;
          wal++;
          if
          :: COMMITTED(wal) -> break
          :: else
          fi
       od }
  :: wal == EVENTS -> break
  od
}

#ifdef COMMIT_LOG
proctype commit_log() {
end:
  do
  :: atomic { settled < wal ->
       do
       :: settled++;
          if
          :: COMMITTED(settled) -> break
          :: else
          fi
       od;
       printf("②  what is before position %d is committed for everybody\n", settled) }
  od
}
#endif

/*
 * A call that was sent arrives at any time later, or never. Rule 4 is that first copies are in order. An event
 * that was not published is loaded later, and its successors may have been sent before that.
 */
#define ARRIVES(e) \
  :: atomic { HAS(sent & ~arrived, e) -> printf("④  Kinesis accepts %c%d\n", EVENT(e)); \
       assert(IN_ORDER(e, arrived | unpublished)); arrived = arrived | BIT(e) }
proctype kinesis() {
end:
  do
  FOR_EACH_EVENT(ARRIVES)
  od
}

/* The server ends a session whenever it likes, and somebody drops the slot, which a lost one needs. */
proctype server() {
end:
  do
  :: atomic { streaming != 0 -> printf("③  the server ends the session of relay %d\n", streaming); streaming = 0 }
  :: atomic { loading != 0 -> printf("③  the server ends the session of relay %d\n", loading); loading = 0 }
  :: atomic { slot != NONE && streaming == 0 -> slot = NONE; printf("③  the slot is dropped\n") }
  od
}

/*
 * Somebody takes outbox out of its publication, and puts it back. A change that is undone while no relay
 * runs, or before a dying relay's next look, is not promised to be noticed. So it is undone only where the
 * relay that streams has seen the publication as it was, where a relay has noticed, or where there is no
 * slot. In doubt no relay is killed, and no other one takes over.
 */
proctype schema() {
  atomic { changing = true; printf("③  a transaction takes outbox out of its publication\n") };
  atomic { absent = true; printf("③  it commits\n") };
  atomic { changing = false; publication = 1; printf("③  the other sessions see it\n") };
  atomic { mark != NONE || slot == NONE || (streaming != 0 && knows[streaming] == 0) ->
    changing = true; doubt = (mark == NONE); printf("③  a transaction puts outbox back\n") };
  atomic { absent = false; printf("③  it commits\n") };
  atomic { changing = false; publication = 2; printf("③  the other sessions see it\n") }
}

/*
 * A row is deleted when the slot has passed a position that was noted after the row was seen, and the
 * publication is good. Such a row is old. What was wrong with the publication when the row was written has
 * been noticed since.
 */
proctype retention() {
  byte noted;
  bool marked;   /* the mark is before the position */
end:
  do
  :: atomic { wal > purged && publication != 1 && !changing && !doubt -> noted = wal; marked = (mark != NONE);
       printf("③  retention notes position %d\n", noted) };
     if
#ifndef PURGE_WITHOUT_SLOT
     :: atomic { slot != NONE && slot >= noted && !(marked && mark != NONE) && publication != 1 && !changing -> skip }
#else
     :: skip
#endif
     :: atomic { noted = 0; marked = false; goto end }
     fi;
     atomic { purged = (noted > purged -> noted : purged); noted = 0; marked = false;
       printf("③  retention deletes the rows before position %d\n", purged); assert(NO_ONLY_COPY_DELETED) }
  od
}
