/* G1: each instant of a schedule becomes exactly one row, whoever owns the shard, whatever becomes of a statement.
 *
 * One shard, NODES nodes, LAST places in the shard's order of due times. The watermark is the last place that has been decided. The run
 * of place p has the key p, but the last place has key 1 once more: a changed jitter made an instant due again that was fired before.
 * Key 0 is a caught-up run that waits from the beginning. The task lets one run be under way at a time.
 *
 * What it stands for: FIRE = src/store/postgres/fire.c, settling = src/trigger/settle.c, claim = src/store/postgres/node.c, take-over =
 * src/trigger/load.c and run_adopt, the writer = src/run/apply.c and src/core/live_step.c (end, release of a successor). A FIRE takes
 * its snapshot when it begins and looks at the shard's row when it has its lock. It may do so long after its node gave it up, or
 * never. A node that is frozen is one that takes no step for a while. */
#include "common.pml"

#ifndef NODES
#define NODES 2
#endif
#ifndef CLAIMS
#define CLAIMS 0 /* take-overs from an owner that lives (it may be frozen) */
#endif
#ifndef CRASHES
#define CRASHES 0 /* kill -9 */
#endif
#ifndef EDITS
#define EDITS 0 /* pauses of the task */
#endif
#ifndef LOSSES
#define LOSSES 0 /* answers of the database that do not come */
#endif
#define LAST    3
#define BATCH   2 /* places of one FIRE */
#define KEYS    3
#define KEY(p)   ((p) == LAST -> 1 : (p))
#define FRESH(p) ((p) != LAST) /* due after the watermark whatever the jitter: nobody can have fired it before */

/* ---------------------------------------------------------------- the guards */
#ifdef NO_EPOCH /* FIRE does not look at the epoch */
#define GUARD_EPOCH(c) true
#else
#define GUARD_EPOCH(c) (c)
#endif
#ifdef NO_WATERMARK_CAS /* FIRE does not compare the watermark with what was seen */
#define GUARD_WATERMARK(c) true
#else
#define GUARD_WATERMARK(c) (c)
#endif
#ifdef NO_TASKS_VERSION /* FIRE does not compare tasks_version with what was seen */
#define GUARD_TASKS(c) true
#else
#define GUARD_TASKS(c) (c)
#endif
#ifdef NO_KEY /* the key of the run is not unique */
#define GUARD_KEY(c) true
#else
#define GUARD_KEY(c) (c)
#endif
#ifdef NO_PRESENT /* runs that the owner still knows are sent again */
#define GUARD_PRESENT(c) false
#else
#define GUARD_PRESENT(c) (c)
#endif
#ifdef NO_FINISH_FENCE /* other writes of run state do not look at the epoch */
#define GUARD_FINISH(c) true
#else
#define GUARD_FINISH(c) (c)
#endif
#ifdef NO_CLAIM_EPOCH /* a take-over does not raise the epoch */
#define GUARD_CLAIM 0
#else
#define GUARD_CLAIM 1
#endif

hidden byte none_twice, no_overlap, not_after_pause, committed_first, none_lost, all_end; /* the properties */

/* ---------------------------------------------------------------- the database */
byte epoch = 1, epoch_finish = 1; /* of shard and of shard_finish */
byte owner = 0;           /* NODES: nobody */
byte watermark;
bit tasks_version;
byte cut = LAST;  /* what is due after it must not fire: the task is paused, by version 1 */
#define CUT(version) ((version) -> cut : LAST)
byte waits[KEYS]; /* open rows by key: PENDING, not let go yet */
byte runs[KEYS];  /* open rows by key: under way */
byte ended[KEYS]; /* rows of run_history by key */

/* FIREs under way: the one that a node sends next or waits for, and one that it has given up. */
#define SLOTS      (2 * NODES)
#define CURRENT(n) (2 * (n) + now_at[n])
#define EARLIER(n) (2 * (n) + 1 - now_at[n])
bit now_at[NODES];
mtype = { NONE, SENT, BEGUN, MOVED, DONE, REFUSED }; /* MOVED: only with TWO_TRANSACTIONS */
mtype f_state[SLOTS] = NONE;
byte f_epoch[SLOTS], f_seen[SLOTS], f_to[SLOTS];
bit f_tasks[SLOTS], f_start[SLOTS] /* the first run is let go at once */, f_known[SLOTS] /* the last place is not sent */,
    f_ended[SLOTS] /* as its snapshot says: key 1 has ended */;
bit f_given_up[SLOTS]; /* nobody waits for its answer */
#define CAN_GIVE_UP(n) (f_state[EARLIER(n)] == NONE || f_state[CURRENT(n)] == NONE)

/* ---------------------------------------------------------------- the nodes */
mtype = { STRANGER, CLAIMED, READING, OWNER, WAITING, DOUBTING };
mtype phase[NODES] = STRANGER;
byte my_epoch[NODES], seen[NODES];
bit my_tasks[NODES];
byte my_waits[NODES], my_runs[NODES]; /* sets of keys: the open runs in its memory */
bit reserved[NODES];                  /* a run whose FIRE is not settled may be under way */
byte claims, crashes, edits, losses;

#define ACTIVE(n)   (my_runs[n] || reserved[n])
#define ROWS(k)     (waits[k] + runs[k] + ended[k])
#define UNDER_WAY   (runs[0] + runs[1] + runs[2])

inline check_rows() {
  MUST(none_twice, ROWS(0) <= 1 && ROWS(1) <= 1 && ROWS(2) <= 1);
  MUST(no_overlap, UNDER_WAY <= 1)
}

/* The runs of a FIRE whose shard was advanced. */
inline insert(s) {
  p = f_seen[s] + 1;
  start = f_start[s];
  do
  :: p > f_to[s] || p > CUT(f_tasks[s]) -> break
  :: else ->
     k = KEY(p);
     if
     :: !FRESH(p) && f_known[s] -> skip
     :: !FRESH(p) && !f_known[s] && !GUARD_KEY(!f_ended[s] && waits[k] + runs[k] == 0) -> skip
     :: FRESH(p) && !GUARD_KEY(waits[k] + runs[k] == 0) -> skip
     :: else ->
        MUST(not_after_pause, p <= cut); /* once it was acknowledged */
        if
        :: start -> runs[k]++; start = 0
        :: else -> waits[k]++
        fi
     fi;
     p++
  od;
  check_rows();
  p = 0; k = 0; start = 0
}

inline execute(s) {
  if
  :: GUARD_EPOCH(f_epoch[s] == epoch) && GUARD_WATERMARK(f_seen[s] == watermark) &&
     GUARD_TASKS(f_tasks[s] == tasks_version) ->
     watermark = f_to[s];
#ifdef TWO_TRANSACTIONS
     f_state[s] = MOVED
#else
     insert(s);
     f_state[s] = DONE
#endif
  :: else -> f_state[s] = REFUSED
  fi
}

inline forget_statement(s) {
  f_state[s] = NONE;
  f_epoch[s] = 0; f_seen[s] = 0; f_to[s] = 0; f_tasks[s] = 0;
  f_start[s] = 0; f_known[s] = 0; f_ended[s] = 0; f_given_up[s] = 0
}

inline nobody_waits(s) {
  if
  :: f_given_up[s] && f_state[s] != MOVED -> forget_statement(s)
  :: else -> skip
  fi
}

/* What the database does with a statement, in its own time. */
proctype statement(byte s) {
  byte p, k;
  bit start;
end:
  do
  :: TRANSACTION { f_state[s] == SENT && f_to[s] == LAST -> f_ended[s] = ended[1] > 0; f_state[s] = BEGUN }
  :: TRANSACTION { f_state[s] == BEGUN || (f_state[s] == SENT && f_to[s] != LAST) -> execute(s); nobody_waits(s) }
#ifdef TWO_TRANSACTIONS
  :: TRANSACTION { f_state[s] == MOVED -> f_ended[s] = ended[1] > 0; insert(s); f_state[s] = DONE; nobody_waits(s) }
#endif
  :: TRANSACTION { f_given_up[s] && f_state[s] != NONE -> forget_statement(s) } /* never carried out */
  od
}

/* ---------------------------------------------------------------- what a node does */

inline forget_all(n) {
  my_epoch[n] = 0; seen[n] = 0; my_tasks[n] = 0; my_waits[n] = 0; my_runs[n] = 0; reserved[n] = 0
}

/* It no longer waits for its statement, which may be carried out yet. */
inline give_up(n) {
  if
  :: f_state[CURRENT(n)] == NONE -> skip
  :: f_state[CURRENT(n)] == DONE || f_state[CURRENT(n)] == REFUSED -> s = CURRENT(n); forget_statement(s)
  :: else -> f_given_up[CURRENT(n)] = 1; now_at[n] = 1 - now_at[n]
  fi;
  s = 0
}

inline step_down(n) {
  give_up(n);
  forget_all(n);
  again = 0; wanted = 0; known = 0;
  phase[n] = STRANGER
}

inline take_rows(n) {
  my_waits[n] = (waits[0] > 0) | ((waits[1] > 0) << 1) | ((waits[2] > 0) << 2);
  my_runs[n] = (runs[0] > 0) | ((runs[1] > 0) << 1) | ((runs[2] > 0) << 2)
}

/* The runs of a FIRE that was done, as its row says: they are in memory, and are delivered. */
inline open_runs(n, to, with_last) {
  p = seen[n] + 1;
  do
  :: p > to -> break
  :: else ->
     k = KEY(p);
     if
     :: p > CUT(my_tasks[n]) || (!FRESH(p) && !with_last) -> skip
     :: !FRESH(p) && (HAS(my_waits[n], k) || HAS(my_runs[n], k)) -> skip
     :: else ->
        MUST(committed_first, ROWS(k) >= 1); /* what is delivered */
        if
        :: runs[k] -> ADD(my_runs[n], k)
        :: waits[k] -> ADD(my_waits[n], k)
        :: else -> skip /* it has ended under another owner */
        fi
     fi;
     p++
  od;
  p = 0; k = 0
}

inline send(n, to) {
  s = CURRENT(n);
  f_epoch[s] = my_epoch[n]; f_seen[s] = seen[n]; f_to[s] = to; f_tasks[s] = my_tasks[n];
  f_start[s] = reserved[n];
  f_known[s] = known;
  f_state[s] = SENT;
  s = 0;
  phase[n] = WAITING
}

/* Is it known what became of the statement that advances to `to`? (settle.c: judge, settle_shard) */
inline judge(n, to, doubt) {
  if
  :: epoch != my_epoch[n] -> step_down(n)
  :: else ->
     if
     :: watermark == to && to == LAST -> phase[n] = CLAIMED /* which of its runs were there, nobody says */
     :: watermark == to && to != LAST -> open_runs(n, to, 0); seen[n] = to; reserved[n] = 0; phase[n] = OWNER
     :: watermark != to && watermark != seen[n] -> phase[n] = CLAIMED
     :: watermark != to && watermark == seen[n] && (tasks_version != my_tasks[n] || !doubt) -> reserved[n] = 0; phase[n] = CLAIMED
     :: else -> /* not done, and may be done yet */
#ifdef FORGET_UNKNOWN
        reserved[n] = 0; phase[n] = OWNER /* decided anew */
#else
        phase[n] = OWNER; again = 1
#endif
     fi
  fi
}

/* End a run, and let the next one go in the same transaction. */
inline finish(n, key) {
  if
  :: GUARD_FINISH(epoch_finish == my_epoch[n]) ->
     if
     :: runs[key] -> runs[key]--; ended[key]++
     :: else -> skip
     fi;
     DROP(my_runs[n], key);
     let_go(n);
     check_rows()
  :: else -> step_down(n)
  fi
}

inline let_go(n) {
  k = 0;
  do
  :: k == KEYS || ACTIVE(n) -> break
  :: else ->
     if
     :: HAS(my_waits[n], k) ->
        DROP(my_waits[n], k);
        if
        :: waits[k] -> waits[k]--; runs[k]++; ADD(my_runs[n], k)
        :: else -> skip
        fi
     :: else -> skip
     fi;
     k++
  od;
  k = 0
}

proctype node(byte n) {
  byte s, p, k, to, wanted; /* wanted: where the FIRE that is not settled goes to */
  bit again, known; /* known: a run that is due again is in memory, and is not sent */
end:
  do
  /* a shard that is taken over, or is ours by a claim whose answer was lost */
#ifdef ADOPT_BY_EARLIER_SNAPSHOT
  :: atomic {
       phase[n] == STRANGER && owner != n && (claims < CLAIMS || owner == NODES) && CAN_GIVE_UP(n) ->
       seen[n] = watermark; my_tasks[n] = tasks_version; take_rows(n); phase[n] = READING
     }
  :: atomic {
       phase[n] == READING && my_epoch[n] == 0 ->
       if :: owner != NODES -> claims++ :: else -> skip fi;
       epoch = epoch + GUARD_CLAIM; epoch_finish = epoch; owner = n; my_epoch[n] = epoch; phase[n] = OWNER
     }
#else
  :: atomic {
       phase[n] == STRANGER && owner != n && (claims < CLAIMS || owner == NODES) ->
       TRANSACTION {
         if :: owner != NODES -> claims++ :: else -> skip fi;
         epoch = epoch + GUARD_CLAIM; epoch_finish = epoch; owner = n
       }
     }
  :: atomic { phase[n] == STRANGER && owner == n -> my_epoch[n] = epoch; phase[n] = CLAIMED }
#endif
  :: TRANSACTION {
       phase[n] == CLAIMED ->
       if
       :: epoch != my_epoch[n] -> step_down(n)
       :: else -> seen[n] = watermark; my_tasks[n] = tasks_version; phase[n] = READING
       fi
     }
  :: TRANSACTION { /* a later statement; the epoch is looked at after it */
       phase[n] == READING && my_epoch[n] ->
       if
       :: epoch != my_epoch[n] -> step_down(n)
       :: else -> take_rows(n); reserved[n] = 0; phase[n] = OWNER
       fi
     }
  /* the trigger */
  :: atomic {
       phase[n] == OWNER && !again && seen[n] < LAST ->
       if
       :: to = seen[n] + 1
       :: seen[n] + BATCH <= LAST -> to = seen[n] + BATCH
       fi;
       TRANSACTION {
         wanted = to;
         to = 0;
         known = GUARD_PRESENT(HAS(my_waits[n], 1) || HAS(my_runs[n], 1));
         reserved[n] = !ACTIVE(n) && CUT(my_tasks[n]) > seen[n];
         send(n, wanted)
       }
     }
  :: TRANSACTION { phase[n] == OWNER && again -> again = 0; send(n, wanted) } /* the very same statement */
  :: TRANSACTION {
       phase[n] == WAITING && f_state[CURRENT(n)] == DONE ->
       open_runs(n, wanted, 1);
       seen[n] = wanted; wanted = 0; reserved[n] = 0; phase[n] = OWNER;
       s = CURRENT(n);
       forget_statement(s);
       s = 0
     }
  :: TRANSACTION {
       phase[n] == WAITING && f_state[CURRENT(n)] == REFUSED ->
       s = CURRENT(n);
       forget_statement(s);
       s = 0;
       judge(n, wanted, f_state[EARLIER(n)] != NONE)
     }
  :: atomic { /* no answer: the statement may be done, or not, or be under way */
       phase[n] == WAITING && losses < LOSSES && CAN_GIVE_UP(n) ->
       losses++;
       TRANSACTION { give_up(n) };
#ifdef UNKNOWN_IS_DONE
       TRANSACTION { open_runs(n, wanted, 1); seen[n] = wanted; reserved[n] = 0; phase[n] = OWNER }
#else
       phase[n] = DOUBTING
#endif
     }
  :: TRANSACTION { phase[n] == DOUBTING -> judge(n, wanted, 1) }
  /* the run writer, beside it */
  :: TRANSACTION { my_epoch[n] && my_runs[n] && CAN_GIVE_UP(n) ->
       if
       :: HAS(my_runs[n], 0) -> finish(n, 0)
       :: else ->
          if
          :: HAS(my_runs[n], 1) -> finish(n, 1)
          :: else -> finish(n, 2)
          fi
       fi }
  :: TRANSACTION { my_epoch[n] && my_waits[n] && !ACTIVE(n) && CAN_GIVE_UP(n) ->
       if
       :: GUARD_FINISH(epoch_finish == my_epoch[n]) -> let_go(n); check_rows()
       :: else -> step_down(n)
       fi }
  /* kill -9 and a new start */
  :: TRANSACTION { phase[n] != STRANGER && crashes < CRASHES && CAN_GIVE_UP(n) ->
       crashes++;
       if
       :: owner == n -> owner = NODES
       :: else -> skip
       fi;
       step_down(n) }
  od
}

/* A pause, acknowledged with its commit. It takes effect at the watermark. */
proctype people() {
end:
  do
  :: TRANSACTION { edits < EDITS -> edits++; cut = watermark; tasks_version = 1 }
  :: edits == 0 -> break /* nobody pauses anything */
  od
}

init {
  byte i;
  atomic {
    waits[0] = 1;
    my_epoch[0] = 1; phase[0] = CLAIMED;
    do
    :: i < SLOTS -> run statement(i); i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < NODES -> run node(i); i++
    :: else -> break
    od;
    run people()
  }
}

/* All is quiet: what was due has its row, and every open run was found by the owner of its shard and brought to its end. */
#define ALL_WELL                                                                                             \
  MUST(none_lost, watermark == LAST && ROWS(0) == 1 && ROWS(1) == (cut >= 1) && ROWS(2) == (cut >= 2));     \
  MUST(all_end, waits[0] + waits[1] + waits[2] + UNDER_WAY == 0);
MONITOR
