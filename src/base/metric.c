#include "base/metric.h"
#include "base/mem.h"
#include "base/thread.h"
#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define METRIC_SERIES_MAX     5000
#define METRIC_LABELS_MAX     6
#define METRIC_BUCKETS_MAX    32
#define METRIC_VALUE_MAX      128 /* bytes of a label value that count */
#define METRIC_CHAINS         256 /* hash chains a family */
#define METRIC_COLLECTORS_MAX 32
static const char other[] = "_other";

struct metric {
  struct metric_family *family;
  struct metric *next;  /* in order of creation */
  struct metric *chain; /* same hash */
  uint64_t hash;
  char *labels;                  /* `a="x",b="y"`, escaped */
  atomic_int_fast64_t count;     /* counter: additions; histogram: not used */
  _Atomic uint64_t bits;         /* gauge, or a counter set from outside: a double */
  atomic_int_fast64_t sum_usec;  /* histogram */
  atomic_int_fast64_t buckets[]; /* histogram: one a bound and one beyond, not cumulative */
};

struct metric_family {
  struct metric_family *next;
  char *name, *help;
  enum metric_kind kind;
  struct slice labels[METRIC_LABELS_MAX]; /* into label_text */
  char *label_text;
  size_t n_labels;
  double bounds[METRIC_BUCKETS_MAX];
  int64_t bounds_usec[METRIC_BUCKETS_MAX];
  size_t n_bounds;
  size_t n_series;
  struct metric *first, **last;
  struct metric *chains[METRIC_CHAINS];
};

/* The process has one registry: what counts does not get handed a context everywhere. The lock protects the
 * lists, not the numbers. Collectors run without it, for they create series. */
static struct {
  pthread_mutex_t lock;
  struct metric_family *first, **last;
  struct {
    void (*collect)(void *);
    void *arg;
  } collectors[METRIC_COLLECTORS_MAX];
  size_t n_collectors;
} registry = {.lock = PTHREAD_MUTEX_INITIALIZER, .last = &registry.first};

static void lock(void) { (void)pthread_mutex_lock(&registry.lock); }
static void unlock(void) { (void)pthread_mutex_unlock(&registry.lock); }

static void family_labels(struct metric_family *f, const char *labels) {
  f->label_text = mem_strdup(labels);
  struct slice rest = slice_of(f->label_text);
  while (rest.n) {
    assert(f->n_labels < METRIC_LABELS_MAX);
    f->labels[f->n_labels++] = slice_cut(rest, ',', &rest);
  }
}

static struct metric_family *family_new(const char *name, const char *help, enum metric_kind kind) {
  struct metric_family *f = mem_zalloc(sizeof *f);
  f->name = mem_strdup(name);
  f->help = mem_strdup(help);
  f->kind = kind;
  f->last = &f->first;
  *registry.last = f;
  registry.last = &f->next;
  return f;
}

struct metric_family *metric_family(const char *name, const char *help, enum metric_kind kind,
                                    const char *labels, const double *buckets) {
  lock();
  struct metric_family *f = registry.first;
  while (f && strcmp(f->name, name) != 0)
    f = f->next;
  if (!f) {
    f = family_new(name, help, kind);
    family_labels(f, labels);
    for (; buckets && buckets[f->n_bounds] > 0; f->n_bounds++) {
      assert(f->n_bounds < METRIC_BUCKETS_MAX);
      f->bounds[f->n_bounds] = buckets[f->n_bounds];
      f->bounds_usec[f->n_bounds] = (int64_t)llround(buckets[f->n_bounds] * 1e6);
    }
  }
  assert(f->kind == kind && strcmp(f->label_text, labels) == 0);
  unlock();
  return f;
}

/* A label value or help text in the exposition format; what is not UTF-8 becomes U+FFFD. */
static void add_escaped(struct str *out, struct slice v, bool quotes) {
  for (size_t i = 0; i < v.n;) {
    size_t step = slice_utf8_step(slice_n(v.p + i, v.n - i));
    if (v.p[i] == '\n')
      str_addz(out, "\\n");
    else if (v.p[i] == '\\')
      str_addz(out, "\\\\");
    else if (v.p[i] == '"' && quotes)
      str_addz(out, "\\\"");
    else if (step)
      str_add(out, slice_n(v.p + i, step));
    else
      str_addz(out, "\xef\xbf\xbd");
    i += step ? step : 1;
  }
}

static void label_text(const struct metric_family *f, const struct slice *values, struct str *out) {
  str_clear(out);
  for (size_t i = 0; i < f->n_labels; i++) {
    if (i)
      str_addc(out, ',');
    str_add(out, f->labels[i]);
    str_addz(out, "=\"");
    add_escaped(out, values[i], true);
    str_addc(out, '"');
  }
}

static struct metric *series_find(const struct metric_family *f, struct slice text, uint64_t hash) {
  struct metric *m = f->chains[hash % METRIC_CHAINS];
  while (m && (m->hash != hash || !slice_eqz(text, m->labels)))
    m = m->chain;
  return m;
}

static struct metric *series_new(struct metric_family *f, struct slice text, uint64_t hash) {
  size_t n = f->kind == METRIC_HISTOGRAM ? f->n_bounds + 1 : 0;
  struct metric *m = mem_zalloc(sizeof *m + n * sizeof m->buckets[0]);
  m->family = f;
  m->hash = hash;
  m->labels = mem_slicedup(text);
  m->chain = f->chains[hash % METRIC_CHAINS];
  f->chains[hash % METRIC_CHAINS] = m;
  *f->last = m;
  f->last = &m->next;
  f->n_series++;
  return m;
}

/* Find or create; NULL when the family is full at `max`. With the lock held. */
static struct metric *series_get(struct metric_family *f, const struct slice *values, size_t max,
                                 struct str *text) {
  label_text(f, values, text);
  uint64_t hash = slice_hash(str_slice(text));
  struct metric *m = series_find(f, str_slice(text), hash);
  if (!m && f->n_series < max)
    m = series_new(f, str_slice(text), hash);
  return m;
}

struct metric *metric_series(struct metric_family *f, ...) {
  struct slice values[METRIC_LABELS_MAX] = {0};
  size_t n = 0;
  va_list args;
  va_start(args, f);
  for (const char *v; (v = va_arg(args, const char *)); n++) {
    assert(n < f->n_labels);
    values[n] = slice_of(v);
    if (values[n].n > METRIC_VALUE_MAX)
      values[n].n = METRIC_VALUE_MAX;
  }
  va_end(args);
  assert(n == f->n_labels);
  auto_str text;
  str_init(&text, SIZE_MAX - 1); /* labels and values are bounded above */
  lock();
  struct metric *m = series_get(f, values, METRIC_SERIES_MAX, &text);
  if (!m) {
    values[0] = SLICE(other);
    m = series_get(f, values, (size_t)2 * METRIC_SERIES_MAX, &text);
  }
  if (!m) { /* another label is without bounds too */
    for (size_t i = 1; i < n; i++)
      values[i] = SLICE(other);
    m = series_get(f, values, SIZE_MAX, &text);
  }
  unlock();
  return m;
}

static double from_bits(uint64_t bits) {
  double d;
  memcpy(&d, &bits, sizeof d);
  return d;
}

static uint64_t to_bits(double d) {
  uint64_t bits;
  memcpy(&bits, &d, sizeof bits);
  return bits;
}

void metric_add(struct metric *m, int64_t n) {
  assert(m->family->kind != METRIC_HISTOGRAM && (n >= 0 || m->family->kind == METRIC_GAUGE));
  if (m->family->kind == METRIC_COUNTER) {
    atomic_fetch_add_explicit(&m->count, n, memory_order_relaxed);
    return;
  }
  uint64_t before = atomic_load_explicit(&m->bits, memory_order_relaxed);
  while (!atomic_compare_exchange_weak_explicit(&m->bits, &before, to_bits(from_bits(before) + (double)n),
                                                memory_order_relaxed, memory_order_relaxed))
    continue;
}

void metric_set(struct metric *m, double v) {
  assert(m->family->kind != METRIC_HISTOGRAM);
  atomic_store_explicit(&m->bits, to_bits(v), memory_order_relaxed);
}

void metric_observe_usec(struct metric *m, int64_t usec) {
  const struct metric_family *f = m->family;
  assert(f->kind == METRIC_HISTOGRAM);
  size_t i = 0;
  while (i < f->n_bounds && usec > f->bounds_usec[i])
    i++;
  atomic_fetch_add_explicit(&m->buckets[i], 1, memory_order_relaxed);
  atomic_fetch_add_explicit(&m->sum_usec, usec, memory_order_relaxed);
}

double metric_value(const struct metric *m) {
  if (m->family->kind != METRIC_HISTOGRAM)
    return (double)atomic_load_explicit(&m->count, memory_order_relaxed) +
           from_bits(atomic_load_explicit(&m->bits, memory_order_relaxed));
  int64_t n = 0;
  for (size_t i = 0; i <= m->family->n_bounds; i++)
    n += atomic_load_explicit(&m->buckets[i], memory_order_relaxed);
  return (double)n;
}

static void add_number(struct str *out, double v) {
  if (isnan(v)) {
    str_addz(out, "NaN");
  } else if (isinf(v)) {
    str_addz(out, v > 0 ? "+Inf" : "-Inf");
  } else if (v == rint(v) && fabs(v) < 1e15) {
    str_addi(out, (int64_t)v);
  } else {
    char buf[40];
    for (int digits = 15; digits <= 17; digits++) {
      (void)snprintf(buf, sizeof buf, "%.*g", digits, v);
      if (strtod(buf, NULL) == v)
        break;
    }
    str_addz(out, buf);
  }
}

/* `name_suffix{labels} ` */
static void add_sample(struct str *out, const struct metric *m, const char *suffix) {
  str_addz(out, m->family->name);
  str_addz(out, suffix);
  if (*m->labels) {
    str_addc(out, '{');
    str_addz(out, m->labels);
    str_addc(out, '}');
  }
  str_addc(out, ' ');
}

static void render_histogram(struct str *out, const struct metric *m) {
  const struct metric_family *f = m->family;
  int64_t n = 0;
  for (size_t i = 0; i <= f->n_bounds; i++) {
    n += atomic_load_explicit(&m->buckets[i], memory_order_relaxed);
    str_addf(out, "%s_bucket{%s%sle=\"", f->name, m->labels, *m->labels ? "," : "");
    add_number(out, i < f->n_bounds ? f->bounds[i] : HUGE_VAL);
    str_addf(out, "\"} %" PRId64 "\n", n);
  }
  add_sample(out, m, "_sum");
  add_number(out, (double)atomic_load_explicit(&m->sum_usec, memory_order_relaxed) / 1e6);
  str_addc(out, '\n');
  add_sample(out, m, "_count");
  str_addi(out, n);
  str_addc(out, '\n');
}

static void render_family(struct str *out, const struct metric_family *f) {
  static const char *const kinds[] = {"counter", "gauge", "histogram"};
  str_addf(out, "# HELP %s ", f->name);
  add_escaped(out, slice_of(f->help), false);
  str_addf(out, "\n# TYPE %s %s\n", f->name, kinds[f->kind]);
  for (const struct metric *m = f->first; m; m = m->next) {
    if (f->kind == METRIC_HISTOGRAM) {
      render_histogram(out, m);
      continue;
    }
    add_sample(out, m, "");
    add_number(out, metric_value(m));
    str_addc(out, '\n');
  }
}

void metric_render(struct str *out) {
  lock();
  size_t n = registry.n_collectors;
  unlock();
  for (size_t i = 0; i < n; i++) /* slots below n are never written again */
    registry.collectors[i].collect(registry.collectors[i].arg);
  lock();
  for (const struct metric_family *f = registry.first; f; f = f->next)
    if (f->first)
      render_family(out, f);
  unlock();
}

void metric_collector(void (*collect)(void *), void *arg) {
  lock();
  assert(registry.n_collectors < METRIC_COLLECTORS_MAX);
  registry.collectors[registry.n_collectors].collect = collect;
  registry.collectors[registry.n_collectors++].arg = arg;
  unlock();
}
