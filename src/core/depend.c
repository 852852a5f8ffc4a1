/* What the ends of parents lead to, and what a child's run is told of them. */
#include "core/depend.h"
#include "base/json.h"

/* Parts of runs that were made so: apart from those that the API makes (bit 30) and from a broadcast's children (1…n). */
#define PART_MARK 0x20000000
#define PART_MASK 0x1fffffff

enum { NAMES_SHOWN = 3 };

void depend_describe(const struct depend_def *d, struct str *out) {
  static const char *const verbs[] = {
      [ENDS_SUCCESS] = "succeeded", [ENDS_FAIL] = "failed", [ENDS_ANY] = "ended"};
  size_t shown = d->count <= NAMES_SHOWN ? d->count : NAMES_SHOWN - 1;
  bool any = d->mode == DEPEND_ANY && d->count > 1;
  str_addz(out, any ? "after any of " : "after ");
  for (size_t i = 0; i < shown; i++) {
    str_addz(out, i == 0 ? "" : i + 1 == d->count ? " and " : ", ");
    str_add(out, d->tasks[i]);
  }
  if (shown < d->count)
    str_addf(out, " and %zu more", d->count - shown);
  str_addf(out, " %s %s", any || d->count == 1 ? "has" : "have", verbs[d->ends]);
}

/* ------------------------------------------------------------------ a turn */

struct turn {
  struct depend_edge *edges;
  size_t edge_count, max_fires;
  struct arena *mem;
  struct depend_out *out;
};

static bool counts(enum depend_ends ends, enum run_state state) {
  switch (ends) {
  case ENDS_SUCCESS: return state == RUN_SUCCESS;
  case ENDS_FAIL: return state == RUN_FAIL;
  case ENDS_ANY: return state != RUN_SKIPPED;
  case DEPEND_ENDS_MAX_: break;
  }
  return false;
}

static struct depend_fire *add_fire(struct turn *t, const struct depend_event *v,
                                    const struct depend_edge *edge, size_t parents) {
  struct depend_fire *f = &t->out->fires[t->out->fire_count++];
  *f = (struct depend_fire){
      .key = {edge->child_shard, v->finished_at, edge->child, (int32_t)(PART_MARK | (v->no & PART_MASK))},
      .last = v->key,
      .version = edge->version,
      .parents = arena_array(t->mem, parents, sizeof *f->parents)};
  return f;
}

static void add_parent(struct depend_fire *f, const struct depend_edge *edge, const struct run_key *key,
                       enum run_state state, usec_t finished_at) {
  f->parents[f->count++] =
      (struct depend_parent){edge->parent_name, *key, state, finished_at, edge->kept ? edge->kept : 1};
}

/* The end is kept; when it was the last that was missing, all of them make a run. */
static void collect(struct turn *t, const struct depend_event *v, size_t i) {
  struct depend_edge *e = &t->edges[i];
  size_t first = i, end = i + 1, missing = 0;
  e->kept++;
  e->key = v->key;
  e->state = v->state;
  e->finished_at = v->finished_at;
  t->out->changed[i] = true;
  while (first && t->edges[first - 1].child == e->child)
    first--;
  while (end < t->edge_count && t->edges[end].child == e->child)
    end++;
  for (size_t k = first; k < end; k++)
    missing += t->edges[k].kept == 0;
  if (missing)
    return;
  struct depend_fire *f = add_fire(t, v, e, end - first);
  for (size_t k = first; k < end; k++) {
    struct depend_edge *one = &t->edges[k];
    add_parent(f, one, &one->key, one->state, one->finished_at);
    one->kept = 0;
    t->out->changed[k] = true;
  }
}

/* False: there was no room for all that it leads to. */
static bool take_event(struct turn *t, const struct depend_event *v) {
  for (size_t i = 0; i < t->edge_count; i++) {
    const struct depend_edge *e = &t->edges[i];
    if (e->parent != v->key.task_id || e->child <= v->after || e->since > v->turn || !e->enabled ||
        !counts(e->ends, v->state))
      continue;
    if (t->out->fire_count == t->max_fires)
      return false;
    if (e->mode == DEPEND_ANY)
      add_parent(add_fire(t, v, e, 1), e, &v->key, v->state, v->finished_at);
    else
      collect(t, v, i);
    t->out->after = e->child;
  }
  return true;
}

void depend_decide(const struct depend_event *events, size_t count, struct depend_edge *edges,
                   size_t edge_count, size_t max_fires, struct arena *mem, struct depend_out *ret) {
  struct turn t = {edges, edge_count, max_fires, mem, ret};
  *ret = (struct depend_out){.fires = arena_array(mem, max_fires, sizeof *ret->fires),
                             .changed = arena_array(mem, edge_count + 1, sizeof *ret->changed)};
  while (ret->done < count) {
    ret->after = 0;
    if (!take_event(&t, &events[ret->done]))
      return;
    ret->done++;
  }
  ret->after = 0;
}

/* ------------------------------------------------------------------ what the child is told */

enum { RESULTS_MAX = 256 * 1024, ERROR_TYPE_MAX = 128, ERROR_MESSAGE_MAX = 1024 };

static void add_text(struct str *s, const char *key, struct slice text) {
  if (!text.n)
    return;
  str_addf(s, ",\"%s\":\"", key);
  str_add_json(s, text);
  str_addc(s, '"');
}

static size_t escaped(struct slice text) {
  auto_str s;
  str_init(&s, SIZE_MAX - 1);
  str_add_json(&s, text);
  return s.n;
}

/* JSON as it is; a text that is none, and what is too long, as a text. Returns the bytes used. */
static size_t add_result(struct str *s, struct slice result, size_t room) {
  auto_json *j = NULL;
  size_t before = s->n, n = result.n;
  if (!result.p)
    return 0;
  if (result.n <= room && json_read(result, result.n, &j, NULL) == 0) {
    str_addz(s, ",\"result\":");
    str_add(s, result);
    return s->n - before;
  }
  while (n > 0 && escaped(slice_utf8_head(result, n)) > room)
    n /= 2;
  add_text(s, "result", slice_utf8_head(result, n));
  if (n < result.n)
    str_addz(s, ",\"result_cut\":true");
  return s->n - before;
}

static void add_told(struct str *s, const struct depend_parent *p, const struct run_row *run) {
  char id[RUN_ID_LEN + 1], at[TIME_TEXT_MAX];
  run_id_format(&p->key, id);
  str_addz(s, "{\"task\":\"");
  str_add_json(s, p->name);
  str_addf(s, "\",\"run_id\":\"%s\",\"state\":\"%s\",\"finished_at\":\"%s\"", id, run_state_names[p->state],
           time_format(p->finished_at, at));
  if (p->count > 1)
    str_addf(s, ",\"ends\":%lld", (long long)p->count);
  if (!run || (!run->error_type.n && !run->error_message.n))
    return;
  str_addf(s, ",\"error\":{\"reason\":\"%s\"", run_reason_names[run->reason]);
  add_text(s, "type", slice_utf8_head(run->error_type, ERROR_TYPE_MAX));
  add_text(s, "message", slice_utf8_head(run->error_message, ERROR_MESSAGE_MAX));
  str_addc(s, '}');
}

char *depend_payload(struct slice own, const struct depend_parent *parents, const struct run_row *const *runs,
                     size_t count) {
  size_t left = RESULTS_MAX;
  struct str s;
  str_init(&s, SIZE_MAX - 1); /* every part is limited */
  if (own.n > 2) {
    str_add(&s, slice_n(own.p, own.n - 1)); /* {…} without its end */
    str_addc(&s, ',');
  } else {
    str_addc(&s, '{');
  }
  str_addz(&s, "\"parents\":[");
  for (size_t i = 0; i < count; i++) {
    if (i)
      str_addc(&s, ',');
    add_told(&s, &parents[i], runs[i]);
    size_t used = runs[i] ? add_result(&s, runs[i]->result, left / (count - i)) : 0;
    left -= used < left ? used : left;
    str_addc(&s, '}');
  }
  str_addz(&s, "]}");
  return str_take(&s);
}
