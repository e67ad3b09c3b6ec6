/*
 * Hops ①②: one request with an Idempotency-Key, and one commit. The client repeats the request until
 * it gets an answer. The API may be killed at any step, and an answer may be lost.
 */
bool car, event, key;   /* committed: the change, its event, and the answer that is stored under the key */
byte changes;           /* commits of the change */
bool answered;

/* Rule 1. The obvious version writes the event after the commit of its change. */
#define BOTH_OR_NEITHER assert(car == event)

active proctype request() {
again:
  printf("①  the client sends the request\n");
  if
#ifndef KEYS_OFF
  :: key -> printf("①  the key is known: the API gives the stored answer\n"); goto answer
#endif
  :: else
  fi;
  if
  :: printf("②  the API is killed before the commit\n"); goto again
  :: skip
  fi;
#ifdef EVENT_AFTER_COMMIT
  atomic { car = true; key = true; changes++; printf("②  the change commits, without its event\n") };
  if
  :: printf("②  the API is killed before it writes the event\n"); goto lost
  :: event = true
  fi;
#else
  atomic { car = true; event = true; key = true; changes++; printf("②  the change, its event and the answer commit\n") };
#endif
  if
  :: printf("②  the API is killed after the commit\n"); goto lost
  :: printf("①  the answer is lost\n"); goto lost
  :: skip
  fi;
answer:
  answered = true;
lost:
  BOTH_OR_NEITHER;
  assert(changes <= 1);   /* equal requests of one key make one change */
  if
  :: !answered -> goto again
  :: else
  fi
}
