/* Faults for tests: before an operation, or in place of its answer. */
#include "store/decorators.h"
#include "store/op_names.h"

struct faults {
  struct store base;
  struct store_ops ops;
  struct store *inner;
  enum store_fault (*decide)(void *arg, const char *op);
  void *arg;
};

static int unknown(enum store_op op, int answer, struct err *e) {
  (void)answer; /* is what is lost */
  return err_set(e, ERR_UNKNOWN_OUTCOME, "fault: the answer to %s was lost", store_op_names[op]);
}

static void faults_close(struct store *s) {
  struct faults *f = (struct faults *)s;
  store_close(&f->inner);
  mem_free(f);
}

/* A lost answer leaves the caller's outputs untouched, as a real one does. */
#define OP(n)                                                                                                \
  static int faults_##n(struct store *s, const struct st_##n *in, struct st_##n##_ret *ret,                  \
                        struct arena *mem, struct err *e) {                                                  \
    struct faults *f = (struct faults *)s;                                                                   \
    struct st_##n##_ret lost = {0};                                                                          \
    enum store_fault fault = f->decide(f->arg, #n);                                                          \
    if (fault == STORE_FAULT_NONE)                                                                           \
      return store_##n(f->inner, in, ret, mem, e);                                                           \
    if (fault == STORE_FAULT_UNAVAILABLE)                                                                    \
      return err_set(e, ERR_UNAVAILABLE, "fault: the database does not take " #n);                           \
    bool done = fault == STORE_FAULT_LOST_ANSWER;                                                            \
    return unknown(STORE_OP_##n, done ? store_##n(f->inner, in, &lost, mem, NULL) : 0, e);                   \
  }
#include "store/store_ops.def"

static const struct store_ops faults_ops = {
    .close = faults_close,
#define OP(n) .n = faults_##n,
#include "store/store_ops.def"
};

struct store *store_faults(struct store *inner, enum store_fault (*decide)(void *arg, const char *op),
                           void *arg) {
  struct faults *f = mem_zalloc(sizeof *f);
  f->ops = faults_ops;
  f->ops.name = inner->ops->name;
  f->ops.caps = inner->ops->caps;
  f->base.ops = &f->ops;
  f->inner = inner;
  f->decide = decide;
  f->arg = arg;
  return &f->base;
}
