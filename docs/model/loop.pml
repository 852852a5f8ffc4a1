/* Nobody waits for anybody in a circle: a node that was fenced off steps down, and a full queue pushes back.
 *
 * Two nodes own a shard each. Each has an I/O loop that takes what comes (reports, what the other node forwards) and a run writer behind a
 * bounded queue. The first shard is taken over in between, so that the writer of node 0 may find its commit fenced off. Each executor
 * has one report for each shard and sends it to any node until it is acknowledged.
 *
 * What it stands for: src/run/service.c (bounded queue, ERR_BUSY, step-down), src/report/intake.c, and the peer link of docs/storage.md. */
#include "common.pml"

#define NODES 2
#define ROOM  1 /* of every queue */
#ifndef EXECUTORS
#define EXECUTORS 2
#endif

hidden byte nobody_waits_for_ever; /* the property */

mtype = { NO_ANSWER, OK, REPEAT };
byte owner[2] = { 0, 1 }; /* of each shard, as the database says */
bit thinks[4];            /* node * 2 + shard: what each node believes to own */
bit robbed;
mtype answers[EXECUTORS] = NO_ANSWER;
byte acknowledged; /* set of executor * 2 + shard */
chan comes[NODES] = [ROOM] of { byte, byte, bit }; /* executor, shard, was forwarded */
chan queue[NODES] = [ROOM] of { byte, byte };
#define THINKS(n, s) thinks[(n) * 2 + (s)]

/* I/O loop: never waits for room. */
proctype loop(byte n) {
  byte e, s;
  bit forwarded;
end:
  do
  :: comes[n]?e, s, forwarded ->
     if
     :: THINKS(n, s) ->
#ifdef LOOP_WAITS_FOR_WRITER
        queue[n]!e, s
#else
        atomic {
          if
          :: nfull(queue[n]) -> queue[n]!e, s
          :: full(queue[n]) -> answers[e] = REPEAT
          fi
        }
#endif
     :: else ->
        if
        :: forwarded || owner[s] == n -> answers[e] = REPEAT
        :: else ->
#ifdef LOOP_WAITS_FOR_PEER
           comes[1 - n]!e, s, 1
#else
           atomic {
             if
             :: nfull(comes[1 - n]) -> comes[1 - n]!e, s, 1
             :: full(comes[1 - n]) -> answers[e] = REPEAT /* or into the inbox */
             fi
           }
#endif
        fi
     fi;
     atomic { e = 0; s = 0; forwarded = 0 }
  od
}

/* One turn after the other; a turn ends when its outcome is known. */
proctype writer(byte n) {
  byte e, s;
end:
  do
  :: queue[n]?e, s ->
     do
     :: atomic { owner[s] == n -> acknowledged = acknowledged | (1 << (e * 2 + s)); answers[e] = OK; break }
#ifdef NO_STEP_DOWN
     :: owner[s] != n -> skip /* fenced off: again */
#else
     :: atomic { owner[s] != n -> THINKS(n, s) = 0; answers[e] = REPEAT; break }
#endif
     od;
     atomic { e = 0; s = 0 }
  od
}

proctype lease() {
  atomic { owner[0] = 1; THINKS(1, 0) = 1; robbed = 1 }
}

proctype executor(byte e) {
  byte n, s;
  do
  :: s == 2 -> break
  :: else ->
     if
     :: n = 0
     :: n = 1
     fi;
#ifdef TO_THE_WRONG_NODE /* what fills the queues between the nodes at its worst */
     n = 1 - s;
#endif
     comes[n]!e, s, 0;
     atomic { answers[e] != NO_ANSWER -> if :: answers[e] == OK -> s++ :: else -> skip fi; answers[e] = NO_ANSWER; n = 0 }
  od;
  atomic { s = 0 }
}

init {
  atomic {
    THINKS(0, 0) = 1;
    THINKS(1, 1) = 1;
    run loop(0); run loop(1); run writer(0); run writer(1); run lease();
    byte i;
    do
    :: i < EXECUTORS -> run executor(i); i++
    :: else -> break
    od;
    i = 0
  }
}

#define ALL_ACKNOWLEDGED (acknowledged == (1 << (2 * EXECUTORS)) - 1)
#define ALL_WELL MUST(nobody_waits_for_ever, ALL_ACKNOWLEDGED);
MONITOR
ltl heard { <> ALL_ACKNOWLEDGED }
