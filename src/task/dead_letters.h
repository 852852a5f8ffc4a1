#pragma once
/* Dead letters: runs that ended in FAIL, until somebody has replayed or discarded them. A dead letter is named by its run. It is made by
 * the FINISH of its run and goes with it (retention). Owns dead_letter but for that. Thread-safe; every call blocks on the database;
 * what is done is logged at info. Runs of namespaces that the caller may not see are not there (c->only_ns). */
#include "task/task.h"

int task_dead_letter_list(struct task_service *s, const struct task_call *c,
                          const struct st_dead_letter_list *in, struct st_dead_letter_list_ret *ret);
int task_dead_letter_get(struct task_service *s, const struct task_call *c, const struct run_key *key,
                         struct dead_letter_row *ret);

struct dead_letter_replay {
  struct slice payload; /* compact JSON text; p == NULL: that of the run */
  struct slice pin;     /* executor instance; empty = any */
  bool ignore_overlap;
};
/* A new run in its place, as the retry of an ended run makes one, and the letter is REPLAYED: one transaction. ERR_CONFLICT: it is not
 * OPEN, or its task is deleted. 1: idempotent repeat. */
int task_dead_letter_replay(struct task_service *s, const struct task_call *c, const struct run_key *key,
                            const struct dead_letter_replay *r, struct run_key *ret_key);
/* Nobody will replay it; c->note says why. ERR_CONFLICT: it is not OPEN. 1: idempotent repeat. */
int task_dead_letter_discard(struct task_service *s, const struct task_call *c, const struct run_key *key);

/* ---- many by filter: the oldest OPEN ones, at most dead_letter_max of the options (and, to be replayed, so many that their payloads are
 * no more than DEAD_LETTER_BYTES_MAX), all in one transaction: after a kill either all of them are done or none. Letters that somebody
 * else handles meanwhile are left to him: none is ever replayed by two calls. */
#define DEAD_LETTER_BYTES_MAX ((size_t)16 * 1024 * 1024)
struct dead_letter_many {
  struct dead_letter_filter filter; /* its state is not looked at */
  int64_t limit;                    /* 0: as many as allowed */
  double rate;                      /* replays released a second; 0: DEAD_LETTER_RATE */
  bool dry_run;                     /* only count */
};
#define DEAD_LETTER_RATE 10.0
struct dead_letter_done {
  int64_t count;
  bool more;      /* there are more of them */
  double rate;    /* of replays */
  usec_t last_at; /* when the last replay is released; 0 = none */
};
/* Each new run (origin REPLAY, retry_of) is released at the rate and waits for its turn in its task, as caught-up runs do, whatever the
 * overlap policy. Letters of deleted tasks are left out. ERR_MISSING: a filter that names nothing. 1: idempotent repeat. */
int task_dead_letters_replay(struct task_service *s, const struct task_call *c,
                             const struct dead_letter_many *m, struct dead_letter_done *ret);
int task_dead_letters_discard(struct task_service *s, const struct task_call *c,
                              const struct dead_letter_many *m, struct dead_letter_done *ret);

/* Count the OPEN ones, up to DEAD_LETTER_COUNT_MAX, for the gauge. Now and then, from any thread. */
#define DEAD_LETTER_COUNT_MAX 100000
int task_dead_letters_count(struct task_service *s, struct err *e);
