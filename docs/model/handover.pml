/* A node leaves on purpose, and reports come to the wrong node: no start is doubled, no answered report is lost.
 *
 * One run, one attempt, two nodes, two executors that do not die, and no time-outs: so the run must end, and by its report. A drain writes
 * who has what before it releases the shard; the next owner asks only that executor. A report that comes to a node that is not the owner is
 * forwarded over the peer link and answered after the owner's commit; when the owner does not answer it is appended to the inbox, and
 * answered after that commit. Either may still happen when the other has.
 *
 * What it stands for: docs/storage.md, "Between nodes" and "graceful drain": the drain (live_write_running, struct live_dispatch.holder), the peer
 * link (src/report/forward.c) and the inbox (src/trigger/changes.c, st_run_apply.inbox_done). */
#include "common.pml"

#define NODES     2
#define EXECUTORS 2
#ifndef KILLS
#define KILLS 0 /* kill -9 of nodes */
#endif
#ifndef THEFTS
#define THEFTS 0 /* take-overs from an owner that lives (it may be frozen) */
#endif
#ifndef DRAINS
#define DRAINS 0
#endif
#ifndef LOSSES
#define LOSSES 0 /* acknowledgements of executors that do not come */
#endif

/* ---------------------------------------------------------------- the guards */
#ifdef NO_RECORD /* a drain does not write who has what */
#define GUARD_RECORD(c) false
#else
#ifdef RECORD_ACCEPTED_ONLY /* a drain writes only those who have said that they have it */
#define GUARD_RECORD(c) ((c) && mem[n] == ACCEPTED)
#else
#define GUARD_RECORD(c) (c)
#endif
#endif
#ifdef NO_INBOX_FENCE /* whoever reads the inbox may delete from it */
#define GUARD_BOX(c) true
#else
#define GUARD_BOX(c) (c)
#endif
#ifdef INBOX_BEFORE_ADOPTION /* the inbox is applied before the open runs are known */
#define GUARD_ADOPTED(c) true
#else
#define GUARD_ADOPTED(c) (c)
#endif

hidden byte answered_when_durable, one_start, every_run_ends, reports_leave; /* the properties */

/* ---------------------------------------------------------------- the database */
byte epoch = 1, owner = 0; /* NODES: released */
bit open = 1;
byte row_holder; /* executor + 1: who has it, as was written */
bit inbox;       /* the report */

/* ---------------------------------------------------------------- executors and nodes */
bit x_has[EXECUTORS], x_done[EXECUTORS], x_owes[EXECUTORS];
byte starts;
bit excuse; /* a node was killed or robbed: another start is allowed */
chan deliveries[EXECUTORS] = [2] of { byte }; /* node */

mtype = { NOTHING, DISPATCHING, ACCEPTED };
mtype = { NO_TURN, END, LATE, BOX_DELETED };
mtype = { NO_REPORT, HERE, FORWARDED };
mtype = { NO_ANSWER, YES, NO };
byte my_epoch[NODES];
bit adopted[NODES], draining[NODES], recorded[NODES];
mtype mem[NODES] = NOTHING;
byte holder[NODES]; /* executor + 1: who may have it */
bit job[NODES];
byte same[NODES];   /* only to this one: executor + 1 */
byte flying[NODES]; /* a delivery without an answer: to executor + 1 */
bit taken[NODES];   /* its answer */
mtype turn[NODES] = NO_TURN;
bit turn_here[NODES], turn_peer[NODES], turn_box[NODES]; /* who waits for it: an executor, the other node, the inbox */
mtype report[NODES] = NO_REPORT; /* one that an executor waits for */
byte report_from[NODES];         /* executor + 1 */
bit peer[NODES];                 /* a report that the other node has forwarded */
mtype peer_answer[NODES] = NO_ANSWER; /* what came back for the one that was forwarded */
byte kills, thefts, drains, losses;

#define OTHER(n) (1 - (n))
#define HOLDS(n) (my_epoch[n] == epoch && owner == n)

inline forget_run(n) {
  mem[n] = NOTHING; holder[n] = 0; job[n] = 0; same[n] = 0; flying[n] = 0; taken[n] = 0
}

inline forget_turn(n) {
  turn[n] = NO_TURN; turn_here[n] = 0; turn_peer[n] = 0; turn_box[n] = 0
}

inline forget_report(n) {
  report[n] = NO_REPORT; report_from[n] = 0; peer_answer[n] = NO_ANSWER
}

/* 200 to the executor */
inline acknowledge(n) {
  MUST(answered_when_durable, !open || inbox);
  x_owes[report_from[n] - 1] = 0;
  forget_report(n)
}

inline answer_peer(n, what) {
  if
  :: report[OTHER(n)] == FORWARDED -> peer_answer[OTHER(n)] = what
  :: else -> skip
  fi
}

/* "Repeat", to whoever waits. */
inline refuse_turn(n) {
  if
  :: turn_here[n] -> forget_report(n)
  :: turn_peer[n] -> answer_peer(n, NO)
  :: else -> skip
  fi;
  forget_turn(n)
}

inline step_down(n) {
  refuse_turn(n);
  my_epoch[n] = 0; adopted[n] = 0; draining[n] = 0; recorded[n] = 0;
  forget_run(n)
}

/* A report that is ours to judge. */
inline judge(n) {
  if
  :: mem[n] == NOTHING -> turn[n] = LATE
  :: else -> turn[n] = END
  fi;
#ifdef ACK_BEFORE_COMMIT
  if
  :: turn_here[n] -> acknowledge(n); turn_here[n] = 0
  :: turn_peer[n] -> answer_peer(n, YES); turn_peer[n] = 0
  :: else -> skip
  fi
#endif
}

/* One transaction: the run's end, and the inbox row that asked for it. */
inline commit(n) {
  if
  :: my_epoch[n] == epoch ->
     if
     :: turn[n] == END -> open = 0
     :: else -> skip
     fi;
     if
     :: turn_box[n] -> inbox = 0
     :: else -> skip
     fi;
     if
     :: turn_here[n] -> acknowledge(n)
     :: turn_peer[n] -> answer_peer(n, YES)
     :: else -> skip
     fi;
     if
     :: turn[n] == END -> forget_run(n)
     :: else -> skip
     fi;
     forget_turn(n)
  :: else ->
     if
     :: turn_box[n] && !GUARD_BOX(false) -> skip
     :: turn_box[n] && GUARD_BOX(false) -> inbox = 0
     :: else -> skip
     fi;
     step_down(n)
  fi
}

proctype node(byte n) {
  byte e;
end:
  do
  /* a take-over, and what it reads later */
  :: TRANSACTION {
       my_epoch[n] == 0 && owner != n && (owner == NODES || thefts < THEFTS) ->
       if
       :: owner != NODES -> thefts++; excuse = 1
       :: else -> skip
       fi;
       epoch++; owner = n; my_epoch[n] = epoch
     }
  :: TRANSACTION {
       my_epoch[n] && !adopted[n] && turn[n] == NO_TURN ->
       if
       :: epoch != my_epoch[n] -> step_down(n)
       :: else ->
          adopted[n] = 1;
          if
          :: open -> mem[n] = DISPATCHING; job[n] = 1; same[n] = row_holder
          :: else -> skip
          fi
       fi
     }
  /* a delivery */
  :: atomic {
       job[n] && mem[n] == DISPATCHING && !flying[n] && !draining[n] ->
       if
       :: same[n] -> e = same[n] - 1
       :: !same[n] -> e = 0
       :: !same[n] -> e = 1
       fi;
       if
       :: nfull(deliveries[e]) -> deliveries[e]!n; flying[n] = e + 1; holder[n] = e + 1; job[n] = 0
       :: full(deliveries[e]) -> skip
       fi;
       e = 0
     }
  :: TRANSACTION { taken[n] && turn[n] == NO_TURN ->
       flying[n] = 0; taken[n] = 0;
       if
       :: mem[n] == DISPATCHING -> mem[n] = ACCEPTED
       :: else -> skip
       fi }
  :: TRANSACTION { flying[n] && !taken[n] && losses < LOSSES && mem[n] == DISPATCHING ->
       losses++; job[n] = 1; same[n] = flying[n]; flying[n] = 0 }
  /* a drain: nothing new goes out; who has what is written; the shard is released */
  :: TRANSACTION { adopted[n] && !draining[n] && drains < DRAINS -> drains++; draining[n] = 1 }
  :: TRANSACTION { draining[n] && !recorded[n] && turn[n] == NO_TURN ->
       if
       :: my_epoch[n] != epoch -> step_down(n)
       :: else ->
          if
          :: GUARD_RECORD(holder[n]) -> row_holder = holder[n]
          :: else -> skip
          fi;
          recorded[n] = 1
       fi }
  :: TRANSACTION { recorded[n] && turn[n] == NO_TURN ->
       if
       :: my_epoch[n] == epoch -> owner = NODES
       :: else -> skip
       fi;
       step_down(n) }
  /* a report of an executor: it is ours, or the owner's, or the inbox's */
  :: TRANSACTION { report[n] == HERE && my_epoch[n] && adopted[n] && turn[n] == NO_TURN -> turn_here[n] = 1; judge(n) }
  :: TRANSACTION { report[n] == HERE && my_epoch[n] == 0 && owner == OTHER(n) && !peer[OTHER(n)] ->
       peer[OTHER(n)] = 1;
       report[n] = FORWARDED;
#ifdef FORWARD_ACK_EARLY
       acknowledge(n)
#endif
     }
  :: TRANSACTION { report[n] == FORWARDED && peer_answer[n] == YES -> acknowledge(n) }
  :: TRANSACTION { (report[n] == FORWARDED && peer_answer[n] != YES) || (report[n] == HERE && !(my_epoch[n] && adopted[n])) ->
       /* the owner says no, does not answer in time, or there is none */
       inbox = 1;
       acknowledge(n) }
  /* from the other node */
  :: TRANSACTION { peer[n] && turn[n] == NO_TURN ->
       peer[n] = 0;
       if
       :: my_epoch[n] && adopted[n] -> turn_peer[n] = 1; judge(n)
       :: else -> answer_peer(n, NO)
       fi }
  /* from the inbox */
  :: TRANSACTION { inbox && my_epoch[n] && GUARD_ADOPTED(adopted[n]) && turn[n] == NO_TURN ->
       turn_box[n] = 1; judge(n);
#ifdef INBOX_DELETED_FIRST
       turn_box[n] = 0;
       if
       :: my_epoch[n] == epoch -> inbox = 0
       :: else -> step_down(n)
       fi
#endif
     }
  :: TRANSACTION { turn[n] != NO_TURN -> commit(n) }
  /* kill -9; connections to it are lost, executors send again */
  :: TRANSACTION { my_epoch[n] && kills < KILLS ->
       kills++; excuse = 1;
       if
       :: owner == n -> owner = NODES
       :: else -> skip
       fi;
       step_down(n);
       forget_report(n);
       peer[n] = 0 }
  od
}

proctype executor(byte e) {
  byte n;
end:
  do
  :: atomic {
       deliveries[e]?n ->
       TRANSACTION {
         if
         :: x_has[e] -> skip /* the same attempt again */
         :: else -> MUST(one_start, starts == 0 || excuse); starts++; x_has[e] = 1
         fi;
         if
         :: flying[n] == e + 1 -> taken[n] = 1
         :: else -> skip
         fi;
         n = 0
       }
     }
  :: TRANSACTION { x_has[e] && !x_done[e] -> x_done[e] = 1; x_owes[e] = 1 }
  :: atomic { /* to any node; no answer: once more */
       x_owes[e] && (report[0] == NO_REPORT || report[1] == NO_REPORT) ->
       if
       :: report[0] == NO_REPORT -> n = 0
       :: report[1] == NO_REPORT -> n = 1
       fi;
       TRANSACTION { report[n] = HERE; report_from[n] = e + 1; n = 0 }
     }
  od
}

init {
  atomic {
    my_epoch[0] = 1; adopted[0] = 1; mem[0] = DISPATCHING; job[0] = 1;
    run node(0);
    run node(1);
    run executor(0);
    run executor(1)
  }
}

#define ALL_WELL                                                                                             \
  MUST(every_run_ends, !open);                                                                               \
  MUST(reports_leave, !inbox && !x_owes[0] && !x_owes[1]);
MONITOR
