/* G2–G6: one run from its first delivery to its end, under every loss that the design speaks of.
 *
 * Nodes that take the shard from each other, executors that die and come back under the same name, deliveries whose acknowledgement is lost,
 * reports that come twice, late, to the wrong node and for an older attempt, transactions whose outcome is not known or that are carried out
 * after all. The run has ATTEMPTS attempts.
 *
 * What it stands for: a turn = src/run/service.c and apply.c (rows of src/core/live_step.c, one transaction, only then answers and
 * deliveries), take-over = run_adopt, deliveries = src/dispatch/dispatcher.c, the executor = sdk/c/attempts.c, receive.c and outbox.c.
 * With -DEXACTLY_ONE an executor claims an attempt at the centre before it starts it. With -DNO_TIMERS no time-out ends anything. */
#include "common.pml"

#ifndef NODES
#define NODES 2
#endif
#ifndef EXECUTORS
#define EXECUTORS 2
#endif
#ifndef ATTEMPTS
#define ATTEMPTS 2
#endif
#ifndef CLAIMS
#define CLAIMS 0 /* take-overs from an owner that lives (it may be frozen) */
#endif
#ifndef CRASHES
#define CRASHES 0 /* kill -9 of nodes */
#endif
#ifndef DEATHS
#define DEATHS 0 /* of executors */
#endif
#ifndef LOSSES
#define LOSSES 0 /* answers that do not come: of the database, of executors */
#endif

/* ---------------------------------------------------------------- the guards */
#ifdef NO_FINISH_FENCE /* changes of runs do not look at the epoch */
#define GUARD_FENCE(c) true
#else
#define GUARD_FENCE(c) (c)
#endif
#ifdef NO_ATTEMPT_CHECK /* changes of runs do not compare attempt and state with what was seen */
#define GUARD_SEEN(c) true
#else
#define GUARD_SEEN(c) (c)
#endif
#ifdef NO_REPORT_ATTEMPT /* a report counts whatever its attempt */
#define GUARD_REPORT(c) true
#else
#define GUARD_REPORT(c) (c)
#endif
#ifdef NO_LATE_FENCE /* "late" is said without asking whether the shard is still ours */
#define GUARD_LATE(c) true
#else
#define GUARD_LATE(c) (c)
#endif
#ifdef NO_ADOPTING /* reports are judged while the open runs are still to be read */
#define GUARD_ADOPTING(c) true
#else
#define GUARD_ADOPTING(c) (c)
#endif
#ifdef NO_DEDUP /* the executor does not know what it was given before */
#define GUARD_DEDUP(c) false
#else
#define GUARD_DEDUP(c) (c)
#endif
#ifdef NO_STALE /* the executor takes an older attempt and a lower fence */
#define GUARD_STALE(c) false
#else
#define GUARD_STALE(c) (c)
#endif
#ifdef NO_EVENT_FENCE /* what went wrong with a delivery of an earlier ownership counts for this one */
#define GUARD_EVENT(c) true
#else
#define GUARD_EVENT(c) (c)
#endif
#ifdef NO_SAME_EXECUTOR /* after a lost acknowledgement anybody may get the attempt */
#define SAME_EXECUTOR(e) 0
#else
#define SAME_EXECUTOR(e) (e)
#endif
#ifdef NO_CLAIM_CAS /* the claim of an attempt does not look at who has it */
#define GUARD_START(c) true
#else
#define GUARD_START(c) (c)
#endif
#ifdef CLAIM_BY_NAME /* a claim belongs to the name of an executor, not to one process */
#define PROCESS(e) ((e) + 1)
#else
#define PROCESS(e) ((e) + 1 + EXECUTORS * life[e])
#endif
#ifdef HOLDER_BY_NAME /* the row says which executor has the run by its name, not by its incarnation */
#define HOLDER_LIFE life[row_holder - 1]
#else
#define HOLDER_LIFE row_life
#endif

hidden byte attempts_go_up, answered_when_durable, judged_by_its_own, refused_by_all, committed_first, once_a_process, no_older_start,
    starts_have_reasons, exactly_one, every_run_ends, reports_leave; /* the properties */

/* ---------------------------------------------------------------- the database */
mtype = { PENDING, RETRY_WAIT, RUNNING }; /* the row's state: PENDING is PENDING/DISPATCHING */
byte epoch, owner = NODES;
bit open = 1; /* the row is in `run`; 0: in history */
byte attempt = 1;
mtype row = PENDING;
byte row_holder, row_life; /* who has it, with RUNNING: executor + 1, and which of its lives */
byte claimed;              /* EXACTLY_ONE: the process that may start this attempt */

/* ---------------------------------------------------------------- executors */
byte life[EXECUTORS];     /* how often it has died */
byte x_attempt[EXECUTORS], x_fence[EXECUTORS]; /* what it knows of the run: the latest attempt; 0 = nothing */
byte x_running[EXECUTORS];                     /* sets of attempts: being worked on, */
byte x_asks[EXECUTORS];                        /* not started, waiting for its claim, */
byte x_ok[EXECUTORS], x_fail[EXECUTORS];       /* ended, the report is not acknowledged */
byte x_started[EXECUTORS];                     /* (only looked at by assertions) started in this life */
byte starts[ATTEMPTS + 1];                     /* (so is this) starts of each attempt, of all executors */
bit excuse[ATTEMPTS + 1]; /* (and this) an acknowledgement, its executor or its owner was lost: another start is allowed */
chan deliveries[EXECUTORS] = [2] of { byte, byte, byte }; /* node, attempt, fence */

/* ---------------------------------------------------------------- nodes */
mtype = { NOTHING, DISPATCHING, ACCEPTED, WAITS }; /* what it holds of the run */
mtype = { NO_TURN, END, FAILED, NEXT, HELD, LATE };
mtype = { NO_REPLY, TAKEN, STALE };
byte my_epoch[NODES]; /* 0: not ours */
bit adopted[NODES];   /* the open runs have been read */
mtype mem[NODES] = NOTHING;
byte my_attempt[NODES];
mtype my_row[NODES];       /* as it was last written or read */
byte holder[NODES], holder_life[NODES]; /* who may have it */
bit job[NODES];            /* it is to be delivered, */
byte same[NODES];          /* 0, or only to this one: executor + 1 */
byte flying[NODES], flying_life[NODES], flying_attempt[NODES], flying_fence[NODES]; /* a delivery without an answer: to executor + 1 */
mtype reply[NODES] = NO_REPLY;
mtype turn[NODES] = NO_TURN; /* rows that are to be committed */
byte turn_from[NODES], turn_life[NODES], turn_report[NODES]; /* who waits for the answer: executor + 1, its life, the report's attempt */
bit turn_ok[NODES], turn_refused[NODES]; /* it was a success; it comes of a refusal */
mtype earlier[NODES] = NO_TURN; /* a transaction that may be carried out yet */
byte earlier_epoch[NODES], earlier_attempt[NODES];
mtype earlier_row[NODES];
byte report_from[NODES], report_life[NODES], report_attempt[NODES]; /* one report that has come: executor + 1 */
bit report_ok[NODES];
byte claims, crashes, deaths, losses;

#define HOLDS(n) (my_epoch[n] == epoch && owner == n)
#define SOMEBODY (HOLDS(0) || HOLDS(1))
#define NOBODY_WORKS_ON(a) (!HAS(x_running[0], a) && !HAS(x_running[EXECUTORS - 1], a))

/* ---------------------------------------------------------------- a transaction of run_apply */

/* The effect of a turn's rows on the row as it is. */
inline write(what, seen_attempt, seen_row, who, whose_life) {
  if
  :: !open -> skip
  :: open && !GUARD_SEEN(attempt == seen_attempt && (what == END || row == seen_row)) -> skip
  :: else ->
     MUST(attempts_go_up, seen_attempt >= attempt);
     if
     :: what == END -> open = 0; claimed = 0; row_holder = 0; row_life = 0
     :: what == FAILED -> row = RETRY_WAIT; row_holder = 0; row_life = 0
     :: what == NEXT ->
        attempt = seen_attempt + 1; row = PENDING; claimed = 0
     :: what == HELD -> row = RUNNING; row_holder = who; row_life = whose_life
     :: else -> skip
     fi
  fi
}

inline forget_turn(n) {
  turn[n] = NO_TURN; turn_from[n] = 0; turn_life[n] = 0; turn_report[n] = 0; turn_ok[n] = 0; turn_refused[n] = 0
}

inline forget_run(n) {
  mem[n] = NOTHING; my_attempt[n] = 0; my_row[n] = 0; holder[n] = 0; holder_life[n] = 0; job[n] = 0; same[n] = 0
}

inline land(n) {
  flying[n] = 0; flying_life[n] = 0; flying_attempt[n] = 0; flying_fence[n] = 0; reply[n] = NO_REPLY
}

inline forget_earlier(n) {
  earlier[n] = NO_TURN; earlier_epoch[n] = 0; earlier_attempt[n] = 0; earlier_row[n] = 0
}

/* 200: recorded or late. The executor has it off its hands, so the centre must have it, or must not need it. */
inline acknowledge(from, his_life, its_attempt) {
  MUST(answered_when_durable, !open || attempt > its_attempt || row == RETRY_WAIT);
  if
  :: from && life[from - 1] == his_life -> DROP(x_ok[from - 1], its_attempt); DROP(x_fail[from - 1], its_attempt)
  :: else -> skip
  fi
}

inline step_down(n) { /* nobody is answered: reporters repeat */
  my_epoch[n] = 0; adopted[n] = 0;
  forget_run(n);
  forget_turn(n)
}

/* The attempt is over without success: what follows is written. */
inline fail_attempt(n) {
  if
  :: my_attempt[n] < ATTEMPTS -> turn[n] = FAILED
  :: else -> turn[n] = END
  fi
}

/* After the commit. */
inline carry_out(n) {
  if
  :: turn_from[n] -> acknowledge(turn_from[n], turn_life[n], turn_report[n])
  :: else -> skip
  fi;
  if
  :: turn[n] == END -> forget_run(n)
  :: turn[n] == FAILED -> mem[n] = WAITS; my_row[n] = RETRY_WAIT; holder[n] = 0; holder_life[n] = 0; job[n] = 0; same[n] = 0
  :: turn[n] == NEXT -> mem[n] = DISPATCHING; my_attempt[n]++; my_row[n] = PENDING; job[n] = 1
  :: turn[n] == HELD -> my_row[n] = RUNNING
  :: else -> skip
  fi;
  forget_turn(n)
}

inline commit(n) {
  if
  :: turn[n] == LATE && !GUARD_LATE(my_epoch[n] == epoch) -> step_down(n)
  :: turn[n] != LATE && !GUARD_FENCE(my_epoch[n] == epoch) -> step_down(n)
  :: else ->
     MUST(refused_by_all, !turn_refused[n] || NOBODY_WORKS_ON(my_attempt[n])); /* else it runs, and counts as refused */
     write(turn[n], my_attempt[n], my_row[n], holder[n], holder_life[n]);
     carry_out(n)
  fi
}

/* A report that has come: is it for what we hold? */
inline take_report(n) {
  turn_from[n] = report_from[n]; turn_life[n] = report_life[n]; turn_report[n] = report_attempt[n];
  turn_ok[n] = report_ok[n];
  report_from[n] = 0; report_life[n] = 0; report_attempt[n] = 0; report_ok[n] = 0;
  if
  :: my_epoch[n] == 0 || !GUARD_ADOPTING(adopted[n]) -> forget_turn(n) /* "repeat" */
  :: else ->
     if
     :: mem[n] == NOTHING || mem[n] == WAITS || !GUARD_REPORT(turn_report[n] == my_attempt[n]) -> turn[n] = LATE
     :: else ->
        MUST(judged_by_its_own, turn_report[n] == my_attempt[n]);
        if
        :: turn_ok[n] -> turn[n] = END
        :: else -> fail_attempt(n)
        fi
     fi;
#ifdef ACK_BEFORE_COMMIT
     acknowledge(turn_from[n], turn_life[n], turn_report[n]);
     turn_from[n] = 0;
#endif
  fi
}

proctype node(byte n) {
  byte e;
end:
  do
  /* a take-over: the claim, and, by a later statement, the run */
  :: TRANSACTION {
       owner != n && my_epoch[n] == 0 && (claims < CLAIMS || !SOMEBODY) ->
       if :: SOMEBODY -> claims++ :: else -> skip fi;
       epoch++; owner = n; my_epoch[n] = epoch
     }
  :: TRANSACTION {
       my_epoch[n] && !adopted[n] && turn[n] == NO_TURN ->
       if
       :: epoch != my_epoch[n] -> step_down(n)
       :: epoch == my_epoch[n] && !open -> adopted[n] = 1
       :: else ->
          adopted[n] = 1; my_attempt[n] = attempt; my_row[n] = row;
          if
          :: row == PENDING -> mem[n] = DISPATCHING; job[n] = 1; excuse[attempt] = epoch > 1
          :: row == RETRY_WAIT -> mem[n] = WAITS
          :: row == RUNNING -> mem[n] = ACCEPTED; holder[n] = row_holder; holder_life[n] = HOLDER_LIFE
          fi
       fi
     }
  /* a delivery */
  :: atomic {
       job[n] && mem[n] == DISPATCHING && !flying[n] ->
       if
       :: same[n] -> e = same[n] - 1
       :: !same[n] -> e = 0
       :: !same[n] && EXECUTORS > 1 -> e = 1
       fi;
       if
       :: nfull(deliveries[e]) ->
          deliveries[e]!n, my_attempt[n], my_epoch[n];
          flying[n] = e + 1; flying_life[n] = life[e]; flying_attempt[n] = my_attempt[n]; flying_fence[n] = my_epoch[n];
          holder[n] = e + 1; holder_life[n] = life[e]; job[n] = 0; same[n] = 0
       :: full(deliveries[e]) -> skip
       fi;
       e = 0
     }
  :: TRANSACTION { /* its answer; one that is not about what we hold now says nothing */
       reply[n] != NO_REPLY && turn[n] == NO_TURN ->
       if
       :: mem[n] != DISPATCHING || flying_attempt[n] != my_attempt[n] -> skip
       :: mem[n] == DISPATCHING && flying_attempt[n] == my_attempt[n] && reply[n] == TAKEN ->
          mem[n] = ACCEPTED; holder[n] = flying[n]; holder_life[n] = flying_life[n]; job[n] = 0; same[n] = 0
       :: else ->
          if
          :: GUARD_EVENT(flying_fence[n] == my_epoch[n]) ->
             turn_refused[n] = 1;
             fail_attempt(n)
          :: else -> skip
          fi
       fi;
       land(n)
     }
  :: TRANSACTION { /* no answer comes: to the same one again, which knows the run if it got it */
       flying[n] && reply[n] == NO_REPLY && losses < LOSSES && turn[n] == NO_TURN ->
       losses++;
       if
       :: mem[n] == DISPATCHING && flying_attempt[n] == my_attempt[n] && flying_fence[n] == my_epoch[n] ->
          job[n] = 1; same[n] = SAME_EXECUTOR(flying[n])
       :: else -> skip
       fi;
       land(n)
     }
  /* what begins a turn */
  :: TRANSACTION { report_from[n] && turn[n] == NO_TURN -> take_report(n) }
#ifndef NO_TIMERS
  :: TRANSACTION { (mem[n] == DISPATCHING || mem[n] == ACCEPTED) && turn[n] == NO_TURN -> fail_attempt(n) }
#endif
  :: TRANSACTION { /* the executor is lost: it stayed away, or has registered anew */
       (mem[n] == DISPATCHING || mem[n] == ACCEPTED) && turn[n] == NO_TURN && holder[n] && life[holder[n] - 1] != holder_life[n] ->
       fail_attempt(n)
     }
  :: TRANSACTION { mem[n] == WAITS && turn[n] == NO_TURN ->
       turn[n] = NEXT;
#ifdef DISPATCH_BEFORE_COMMIT
       if
       :: nfull(deliveries[0]) -> deliveries[0]!n, my_attempt[n] + 1, my_epoch[n]
       :: full(deliveries[0]) -> skip
       fi
#endif
     }
  :: TRANSACTION { mem[n] == ACCEPTED && my_row[n] == PENDING && turn[n] == NO_TURN -> turn[n] = HELD }
  /* its commit; when the outcome is not known, the same rows again */
  :: TRANSACTION { turn[n] != NO_TURN -> commit(n) }
  :: TRANSACTION {
       turn[n] != NO_TURN && turn[n] != LATE && earlier[n] == NO_TURN && losses < LOSSES ->
       losses++;
       earlier[n] = turn[n]; earlier_epoch[n] = my_epoch[n]; earlier_attempt[n] = my_attempt[n]; earlier_row[n] = my_row[n]
     }
  :: TRANSACTION { /* carried out after all */
       earlier[n] != NO_TURN ->
       if
       :: GUARD_FENCE(earlier_epoch[n] == epoch) -> write(earlier[n], earlier_attempt[n], earlier_row[n], 0, 0)
       :: else -> skip
       fi;
       forget_earlier(n)
     }
  :: TRANSACTION { earlier[n] != NO_TURN -> forget_earlier(n) } /* or never */
  /* kill -9; a new start claims what was its own */
  :: TRANSACTION {
       my_epoch[n] && crashes < CRASHES ->
       crashes++;
       if
       :: owner == n -> owner = NODES
       :: else -> skip
       fi;
       if
       :: turn[n] != NO_TURN && turn[n] != LATE && earlier[n] == NO_TURN -> /* it may be on its way */
          earlier[n] = turn[n]; earlier_epoch[n] = my_epoch[n]; earlier_attempt[n] = my_attempt[n]; earlier_row[n] = my_row[n]
       :: else -> skip
       fi;
       step_down(n);
       land(n);
       report_from[n] = 0; report_life[n] = 0; report_attempt[n] = 0; report_ok[n] = 0
     }
  od
}

/* ---------------------------------------------------------------- an executor */

inline start(e, a) {
  MUST(committed_first, !open || attempt >= a);
  MUST(once_a_process, !HAS(x_started[e], a));
  MUST(no_older_start, x_started[e] < (1 << (a + 1)));
  MUST(starts_have_reasons, starts[a] == 0 || excuse[a]);
#ifdef EXACTLY_ONE
  MUST(exactly_one, starts[a] == 0);
#endif
  starts[a]++;
  ADD(x_started[e], a);
  ADD(x_running[e], a)
}

/* 202 or 409, if the node still waits for it */
inline answer(n, e, a, f, what) {
  if
  :: flying[n] == e + 1 && flying_attempt[n] == a && flying_fence[n] == f && reply[n] == NO_REPLY ->
     reply[n] = what; flying_life[n] = life[e]
  :: else -> skip
  fi
}

/* After its loss the centre may give an attempt to others: was it lost? */
inline excuse_all(set) {
  a = 1;
  do
  :: a > ATTEMPTS -> break
  :: else ->
     if
     :: HAS(set, a) -> excuse[a] = 1
     :: else -> skip
     fi;
     a++
  od;
  a = 0
}

proctype executor(byte e) {
  byte n, a, f;
end:
  do
  :: atomic {
       deliveries[e]?n, a, f ->
       TRANSACTION {
         if
         :: GUARD_STALE(x_attempt[e] && (f < x_fence[e] || a < x_attempt[e])) -> answer(n, e, a, f, STALE)
         :: !GUARD_STALE(x_attempt[e] && (f < x_fence[e] || a < x_attempt[e])) && GUARD_DEDUP(a == x_attempt[e]) ->
            x_fence[e] = f;
            answer(n, e, a, f, TAKEN)
         :: else ->
            x_attempt[e] = a; x_fence[e] = f;
#ifdef EXACTLY_ONE
            ADD(x_asks[e], a);
#else
            start(e, a);
#endif
            answer(n, e, a, f, TAKEN)
         fi;
         n = 0; a = 0; f = 0
       }
     }
#ifdef EXACTLY_ONE
  /* one transaction at the centre; when its outcome is not known, it asks again */
  :: atomic {
       x_asks[e] ->
       TRANSACTION {
         a = 1;
         do
         :: HAS(x_asks[e], a) -> break
         :: else -> a++
         od;
         if
         :: open && attempt == a && row != RETRY_WAIT && GUARD_START(claimed == 0 || claimed == PROCESS(e)) -> claimed = PROCESS(e); n = 1
         :: else -> n = 0
         fi
       };
       if
       :: n -> DROP(x_asks[e], a); start(e, a)
       :: n && losses < LOSSES -> losses++ /* granted, and it does not know */
       :: !n -> DROP(x_asks[e], a)
       fi;
       n = 0; a = 0
     }
#endif
  /* the work ends, one way or the other */
  :: atomic {
       x_running[e] ->
       a = 1;
       do
       :: HAS(x_running[e], a) -> break
       :: else -> a++
       od;
       DROP(x_running[e], a);
       if
       :: ADD(x_ok[e], a)
       :: ADD(x_fail[e], a)
       fi;
       a = 0
     }
  /* a report, to any node, until it is acknowledged */
  :: atomic {
       (x_ok[e] || x_fail[e]) && (!report_from[0] || !report_from[1]) ->
       if
       :: !report_from[0] -> n = 0
       :: !report_from[1] -> n = 1
       fi;
       TRANSACTION {
         a = 1;
         do
         :: HAS(x_ok[e] | x_fail[e], a) -> break
         :: else -> a++
         od;
         report_from[n] = e + 1; report_life[n] = life[e]; report_attempt[n] = a; report_ok[n] = HAS(x_ok[e], a);
         n = 0; a = 0
       }
     }
#ifdef FORGETS_UNACKNOWLEDGED
  /* its memory is bounded: it forgets an attempt that has ended, though the centre has not taken its report */
  :: TRANSACTION { x_attempt[e] && (x_ok[e] || x_fail[e]) && !x_running[e] -> x_attempt[e] = 0; x_fence[e] = 0 }
#endif
  /* it dies with all that it knows, and comes back */
  :: TRANSACTION {
       deaths < DEATHS && x_attempt[e] ->
       deaths++;
       excuse_all(x_started[e]);
       life[e]++;
       x_attempt[e] = 0; x_fence[e] = 0; x_running[e] = 0; x_asks[e] = 0; x_ok[e] = 0; x_fail[e] = 0; x_started[e] = 0
     }
  od
}

init {
  atomic {
    run node(0);
    run node(1);
    run executor(0);
#if EXECUTORS > 1
    run executor(1);
#endif
  }
}

/* All is quiet: the run has ended, and every report is off the hands of its executor. */
#define ALL_WELL                                                                                             \
  MUST(every_run_ends, !open);                                                                               \
  MUST(reports_leave, !(x_ok[0] | x_fail[0]) && !(x_ok[EXECUTORS - 1] | x_fail[EXECUTORS - 1]));
MONITOR
