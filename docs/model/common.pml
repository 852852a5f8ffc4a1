/* What the models share: how a guard is taken away, sets of small numbers, the monitor of quiet states.
 *
 * A guard of the design is an expression GUARD_X(condition): the condition, or `true` when the model is made with -DNO_X. The
 * suite `model` (tests/model) verifies every model with all guards, and requires a failure without each of them (README.md).
 *
 * Time is no part of any model: a lease may be lost, an answer given up, a timer run out whenever it is possible at all. */

/* sets of the numbers 0 … 7 in a byte */
#define HAS(set, i)  (((set) >> (i)) & 1)
#define ADD(set, i)  set = (set) | (1 << (i))
#define DROP(set, i) set = (set) & (255 - (1 << (i)))

/* A transaction of the database: nobody sees a half of it. */
#define TRANSACTION d_step

/* A property by its name, which is what the verifier shows when it does not hold. The names are variables that nobody sets. */
#define MUST(property, c) assert((c) || property)

/* Holds in the states in which nothing can happen any more: the only place where "in the end" is asked for. Each model
 * says with ALL_WELL what must be true then. */
#define MONITOR                                                                                              \
  active proctype monitor() {                                                                                \
    timeout;                                                                                                 \
    d_step { ALL_WELL }                                                                                      \
  }
