/* What people see of a task: the document, statistics, previews. */
#include "core/calendar.h"
#include "task/internal.h"
#include <stdio.h>

/* ------------------------------------------------------------------ documents */

static void set_new(json_t *o, const char *key, json_t *v) {
  (void)json_object_set_new(o, key, v); /* fails only without memory */
}

static void set_text(json_t *o, const char *key, struct slice s) {
  if (s.n)
    set_new(o, key, json_stringn(s.p, s.n));
}

static void set_time(json_t *o, const char *key, usec_t t) {
  char buf[TIME_TEXT_MAX];
  if (t > 0 && t != USEC_NEVER)
    set_new(o, key, json_string(time_format(t, buf)));
}

int task_json(const struct task_row *t, bool with_payload, json_t **ret, struct err *e) {
  auto_free char *name = mem_slicedup(t->v.name), *description = mem_slicedup(t->description);
  struct task_source src = {
      .definition = t->v.definition, .name = name, .description = description, .anchor = t->v.anchor};
  if (with_payload && t->v.has_payload)
    src.payload = t->payload;
  auto_json *doc = NULL;
  int r = task_document(&src, &doc, e);
  if (r < 0)
    return r;
  char id[24];
  (void)snprintf(id, sizeof id, "%lld", (long long)t->v.task_id);
  json_t *out = json_object();
  set_new(out, "id", json_string(id));
  (void)json_object_update(out, doc); /* fails only without memory */
  set_new(out, "state", json_string(task_state_names[t->v.state]));
  set_new(out, "version", json_integer(t->v.version));
  set_new(out, "shard", json_integer(t->v.shard));
  set_text(out, "schedule_text", t->schedule_text);
  set_time(out, "effective_at", t->v.effective_at);
  set_time(out, "created_at", t->created_at);
  set_text(out, "created_by", t->created_by);
  set_time(out, "updated_at", t->updated_at);
  set_text(out, "updated_by", t->updated_by);
  set_text(out, "note", t->note);
  set_text(out, "managed_by", t->managed_by);
  *ret = out;
  return 0;
}

/* ------------------------------------------------------------------ statistics */

static usec_t next_of(const struct task_row *t, const struct task_spec *spec,
                      const struct st_task_stats_ret *counts, usec_t now) {
  usec_t after = now > t->v.effective_at ? now : t->v.effective_at;
  if (t->v.state != TASK_ENABLED)
    return USEC_NEVER;
  if (spec->kind != SCHEDULE_FIXED_DELAY)
    return schedule_next_included(spec->schedule, t->v.anchor, after);
  if (counts->open) /* it counts from that run's end */
    return USEC_NEVER;
  usec_t base = counts->last_finished_at > t->v.effective_at ? counts->last_finished_at : t->v.effective_at;
  usec_t next = base + spec->every;
  if (!counts->last_finished_at && spec->start_at > t->v.effective_at)
    next = spec->start_at;
  return next <= spec->end_at ? next : USEC_NEVER;
}

int task_stats(struct task_service *s, const struct task_call *c, struct slice ref, usec_t since,
               struct task_stats *ret) {
  struct task_row t;
  int r = task_get(s, c, ref, 0, &t);
  if (r < 0)
    return r;
  struct st_task_stats in = {.task_id = t.v.task_id, .since = since};
  struct task_stats st = {.success_rate = -1, .failure_rate = -1};
  r = store_task_stats(s->o.store, &in, &st.counts, c->mem, c->e);
  if (r < 0)
    return r;
  double ended = (double)(st.counts.success + st.counts.fail);
  if (ended > 0) {
    st.success_rate = (double)st.counts.success / ended;
    st.failure_rate = (double)st.counts.fail / ended;
  }
  st.next_at = st.next_due = USEC_NEVER;
  struct task_spec *spec = NULL;
  if (task_spec_of(s, t.v.definition, &spec, NULL) ==
      0) { /* a zone that vanished: no next instant, the rest is true */
    st.next_at = st.next_due = next_of(&t, spec, &st.counts, task_now(s));
    if (st.next_at != USEC_NEVER && spec->kind != SCHEDULE_FIXED_DELAY)
      st.next_due += schedule_jitter(spec->schedule, t.v.task_id, st.next_at);
  }
  task_spec_unref(&spec);
  *ret = st;
  return 0;
}

static void set_duration(json_t *o, const char *key, usec_t d) {
  char buf[TIME_TEXT_MAX];
  set_new(o, key, json_string(duration_format(d, buf)));
}

json_t *task_stats_json(const struct task_stats *st) {
  const struct st_task_stats_ret *n = &st->counts;
  json_t *o = json_object();
  set_new(o, "fires", json_integer(n->fires));
  set_new(o, "success", json_integer(n->success));
  set_new(o, "fail", json_integer(n->fail));
  set_new(o, "cancelled", json_integer(n->cancelled));
  set_new(o, "skipped", json_integer(n->skipped));
  set_new(o, "open", json_integer(n->open));
  set_new(o, "attempts", json_integer(n->attempts));
  set_new(o, "success_rate", st->success_rate < 0 ? json_null() : json_real(st->success_rate));
  set_new(o, "failure_rate", st->failure_rate < 0 ? json_null() : json_real(st->failure_rate));
  set_duration(o, "mean_duration", n->mean_duration);
  set_duration(o, "max_duration", n->max_duration);
  set_time(o, "last_scheduled_at", n->last_scheduled_at);
  set_time(o, "last_started_at", n->last_started_at);
  set_time(o, "last_finished_at", n->last_finished_at);
  if (n->last_state >= 0 && n->last_state < RUN_STATE_MAX_)
    set_new(o, "last_state", json_string(run_state_names[n->last_state]));
  set_time(o, "next_at", st->next_at);
  if (st->next_due != st->next_at)
    set_time(o, "next_due", st->next_due);
  return o;
}

/* ------------------------------------------------------------------ previews */

static const char *note_text(enum dst_note note) {
  static const char *const texts[DST_NOTE_MAX_] = {
      [DST_GAP_MADE_UP] = "the clock leaves out a local time of this schedule: it fires once, at the first "
                          "instant after the gap",
      [DST_GAP_SHIFTED] = "the clock leaves out this local time: it is shifted forward by the gap",
      [DST_FIRST_COPY] = "the clock repeats this local time: this is the first of the two",
      [DST_SECOND_COPY] = "the clock repeats this local time: this is the second of the two",
  };
  return texts[note];
}

static const char *remark(enum schedule_kind kind, size_t count) {
  switch (kind) {
  case SCHEDULE_FIXED_DELAY: return "each instant follows from the end of the run before";
  case SCHEDULE_MANUAL: return "it runs only when it is triggered, or after others if it depends on them";
  case SCHEDULE_ONE_TIME: return count ? NULL : "the instant has passed";
  case SCHEDULE_CRON:
  case SCHEDULE_FIXED_RATE:
  case SCHEDULE_KIND_MAX_: break;
  }
  return count ? NULL : "no instant is left";
}

static void fill(const struct schedule *s, usec_t anchor, const struct preview_ask *ask, struct preview *p) {
  static const char *const calendars[CALENDAR_NOTE_MAX_] = {
      [CALENDAR_EXCLUDED] = "excluded", [CALENDAR_EXTRA_DAY] = "extra_day"};
  for (usec_t at = ask->from; p->count < (size_t)ask->n;) {
    at = ask->included ? schedule_next_included(s, anchor, at) : schedule_next(s, anchor, at);
    if (at == USEC_NEVER)
      break;
    struct schedule_note note;
    struct preview_item *x = &p->items[p->count++];
    schedule_explain(s, at, &note);
    x->at = at;
    x->offset = note.offset;
    (void)time_format_offset(at, note.offset, x->local);
    x->note = note_text(note.note);
    x->calendar = calendars[note.calendar];
  }
  p->jitter = schedule_jitter_max(s);
  p->remark = remark(schedule_kind(s), p->count);
}

/* In a bare schedule the fields stand at the top. */
static void strip(struct err *e) {
  static const char prefix[] = "/schedule";
  if (e && strncmp(e->field, prefix, sizeof prefix - 1) == 0)
    memmove(e->field, e->field + sizeof prefix - 1, strlen(e->field) - sizeof prefix + 2);
}

static int check_ask(const struct preview_ask *ask, struct err *e) {
  if (ask->n < 1 || ask->n > TASK_PREVIEW_MAX)
    return err_field(e, ERR_INVALID, "/n", "expected a whole number from 1 to %d", TASK_PREVIEW_MAX);
  return 0;
}

static const char *after_text(const struct depend_def *d, struct arena *mem) {
  auto_str text;
  str_init(&text, TASK_REMARK_MAX);
  str_addz(&text, "it runs ");
  depend_describe(d, &text);
  return str_failed(&text) ? "it runs after others" : arena_slice(mem, str_slice(&text)).p;
}

int task_next(struct task_service *s, const struct task_call *c, const struct task_row *t,
              const struct preview_ask *ask, struct preview *ret) {
  struct task_spec *spec = NULL;
  int r = check_ask(ask, c->e);
  if (r < 0 || (r = task_spec_of(s, t->v.definition, &spec, c->e)) < 0)
    return r;
  struct preview_ask from = *ask;
  struct preview p = {.items = arena_array(c->mem, (size_t)ask->n, sizeof *p.items)};
  from.from = ask->from ? ask->from : task_now(s);
  fill(spec->schedule, t->v.anchor, &from, &p);
  if (spec->depends.count)
    p.remark = after_text(&spec->depends, c->mem);
  task_spec_unref(&spec);
  *ret = p;
  return 0;
}

/* The calendar that a schedule names, from the namespace of its document. */
static int set_calendar(struct task_service *s, const struct task_call *c, const json_t *doc,
                        struct task_schedule *ts) {
  const json_t *j = json_object_get(doc, "namespace");
  struct slice ns = json_is_string(j) ? slice_n(json_string_value(j), json_string_length(j))
                    : c->only_ns.n    ? c->only_ns
                                      : SLICE("default");
  struct calendar *calendar = NULL;
  int32_t version;
  if (!ts->calendar.n)
    return 0;
  int r = c->only_ns.n && !slice_eq(ns, c->only_ns)
              ? err_field(c->e, ERR_FORBIDDEN, "/namespace", "this token is bound to the namespace \"%.*s\"",
                          SLICE_FMT(c->only_ns))
              : task_calendar_find(s, ns, ts->calendar, &calendar, &version, c->e);
  if (r < 0)
    return r;
  schedule_set_calendar(ts->schedule, calendar);
  calendar_free(&calendar);
  return 0;
}

int task_preview(struct task_service *s, const struct task_call *c, const json_t *doc,
                 const struct preview_ask *ask, struct preview *ret) {
  int r = check_ask(ask, c->e);
  if (r < 0 || (r = json_want_object(doc, "", c->e)) < 0)
    return r;
  const json_t *inner = json_object_get(doc, "schedule");
  struct task_schedule ts;
  mutex_lock(&s->lock);
  r = task_schedule_parse(inner ? inner : doc, s->zones, &ts, c->e);
  mutex_unlock(&s->lock);
  bool parsed = r == 0;
  if (parsed)
    r = set_calendar(s, c, doc, &ts);
  if (r < 0) {
    if (parsed)
      schedule_free(&ts.schedule);
    if (!inner)
      strip(c->e);
    return r;
  }
  usec_t now = task_now(s);
  struct preview_ask from = *ask;
  struct preview p = {.items = arena_array(c->mem, (size_t)ask->n, sizeof *p.items)};
  from.from = ask->from ? ask->from : now;
  fill(ts.schedule, ts.anchor ? ts.anchor : now, &from, &p);
  if (ts.run_at_note == DST_GAP_SHIFTED && p.count)
    p.items[0].note = note_text(DST_GAP_SHIFTED);
  schedule_free(&ts.schedule);
  *ret = p;
  return 0;
}
