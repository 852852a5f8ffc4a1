/* How long each operation takes, and how many fail. In a test build each has two failpoints: db.OPERATION.before and .after. */
#include "base/failpoint.h"
#include "base/log.h"
#include "base/metric.h"
#include "base/thread.h"
#include "store/decorators.h"
#include "store/op_names.h"

struct trace {
  struct store base;
  struct store_ops ops;
  struct store *inner;
  const struct clock *clock;
  usec_t slow;
};

/* Families live as long as the process: the series are the same for every traced store. */
static struct { struct metric *duration[STORE_OP_MAX_], *errors[STORE_OP_MAX_]; } series;

static void make_series(void) {
  static const double buckets[] = {0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05,
                                   0.1,    0.2,    0.5,   1,     2,     5,    10,   0};
  struct metric_family *duration = metric_family(
      "kelou_db_query_duration_seconds", "Time of a database operation.", METRIC_HISTOGRAM, "op", buckets);
  struct metric_family *errors =
      metric_family("kelou_db_errors_total", "Database operations that failed (refusals do not count).",
                    METRIC_COUNTER, "op", NULL);
  for (int op = 0; op < STORE_OP_MAX_; op++) {
    series.duration[op] = metric_series(duration, store_op_names[op], NULL);
    series.errors[op] = metric_series(errors, store_op_names[op], NULL);
  }
}

/* Refused by the rules, as against failed. */
static bool is_refusal(int r) {
  static const int codes[] = {ERR_NOT_FOUND, ERR_CONFLICT, ERR_STALE,   ERR_IDEMPOTENCY,
                              ERR_LIMIT,     ERR_FENCED,   ERR_INVALID, -ENOTSUP};
  for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
    if (r == codes[i])
      return true;
  return r >= 0;
}

static void note(const struct trace *t, enum store_op op, usec_t began, int r) {
  usec_t took = t->clock->mono(t->clock) - began;
  if (!is_refusal(r))
    metric_add(series.errors[op], 1);
  if (op == STORE_OP_wait_change)
    return; /* its waiting is its work */
  metric_observe_usec(series.duration[op], took);
  if (took >= t->slow)
    log_debug("slow database operation", LF_S("op", store_op_names[op]), LF_D("took", took), LF_I("code", r));
}

static void trace_close(struct store *s) {
  struct trace *t = (struct trace *)s;
  store_close(&t->inner);
  mem_free(t);
}

#define OP(n)                                                                                                \
  static int trace_##n(struct store *s, const struct st_##n *in, struct st_##n##_ret *ret,                   \
                       struct arena *mem, struct err *e) {                                                   \
    struct trace *t = (struct trace *)s;                                                                     \
    usec_t began = t->clock->mono(t->clock);                                                                 \
    if (failpoint("db." #n ".before"))                                                                       \
      return err_set(e, ERR_UNAVAILABLE, "failpoint: the database does not take " #n);                       \
    int r = store_##n(t->inner, in, ret, mem, e);                                                            \
    (void)failpoint("db." #n ".after");                                                                      \
    note(t, STORE_OP_##n, began, r);                                                                         \
    return r;                                                                                                \
  }
#include "store/store_ops.def"

static const struct store_ops trace_ops = {
    .close = trace_close,
#define OP(n) .n = trace_##n,
#include "store/store_ops.def"
};

struct store *store_trace(struct store *inner, usec_t slow, const struct clock *clock) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  struct trace *t = mem_zalloc(sizeof *t);
  pthread_once(&once, make_series);
  t->ops = trace_ops;
  t->ops.name = inner->ops->name;
  t->ops.caps = inner->ops->caps;
  t->base.ops = &t->ops;
  t->inner = inner;
  t->slow = slow;
  t->clock = clock;
  return &t->base;
}
