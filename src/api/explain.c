/* /api/v1/tasks/{task}/explain: the facts from the task and the run service, in the order that core/explain.h asks for, what the core
 * makes of them, as a document. */
#include "api/internal.h"
#include <stdio.h>

struct explaining {
  struct call *c;
  struct task_row task; /* its newest version */
  struct explain_facts facts;
  enum cron_lang lang;
  json_t *items;
};

/* ------------------------------------------------------------------ the document */

static void put_ms(json_t *o, const char *key, usec_t d) {
  put(o, key, json_real((double)(d > 0 ? d : 0) / USEC_PER_MS));
}

static void put_key(json_t *o, const char *key, const struct run_row *r) {
  char id[RUN_ID_LEN + 1];
  if (!r)
    return;
  run_id_format(&r->key, id);
  put(o, key, json_string(id));
}

static void put_version(json_t *o, const char *key, const struct explain_version *v) {
  if (!v)
    return;
  json_t *x = json_object();
  put(x, "version", json_integer(v->version));
  put(x, "state", json_string(task_state_names[v->state]));
  put_time(x, "effective_at", v->effective_at);
  put_text(x, "by", v->by);
  put_text(x, "note", v->note);
  put(o, key, x);
}

static void put_notes(const struct explaining *x, json_t *o, const struct explain_answer *a) {
  json_t *list = json_array();
  for (int n = 0; n < EXPLAIN_NOTE_MAX_; n++) {
    if (!(a->notes >> n & 1))
      continue;
    auto_str text;
    str_init(&text, 8192);
    explain_note_text(&x->facts, a, (enum explain_note)n, x->lang, &text);
    json_t *note = json_object();
    put(note, "code", json_string(explain_note_names[n]));
    put_text(note, "text", str_slice(&text));
    (void)json_array_append_new(list, note); /* fails only without memory */
  }
  put(o, "notes", list);
}

static void put_parts(const struct explaining *x, json_t *o, const struct explain_answer *a) {
  json_t *list = json_array();
  for (size_t i = 0; i < a->part_count; i++) {
    const struct explain_part *p = &a->parts[i];
    json_t *part = json_object();
    put(part, "part", json_string(explain_part_names[p->kind]));
    put(part, "text", json_string(explain_part_text(p->kind, x->lang)));
    put_time(part, "from", p->from);
    put_time(part, "to", p->to);
    put_ms(part, "ms", (p->to ? p->to : x->facts.now) - p->from);
    if (p->attempt)
      put(part, "attempt", json_integer(p->attempt));
    put_text(part, "waited_for", slice_of(p->waited_for));
    put_key(part, "behind", p->behind);
    (void)json_array_append_new(list, part); /* fails only without memory */
  }
  put(o, "parts", list);
}

static void put_run(const struct explaining *x, json_t *o, const struct explain_run *r) {
  json_t *run = run_json(&r->run, x->task.v.name, x->task.ns, false);
  if (r->waits_for != WAIT_NONE)
    put(run, "waits_for", json_string(run_wait_names[r->waits_for]));
  put(o, "run", run);
}

static void put_mismatch(json_t *o, unsigned fields) {
  json_t *list = json_array();
  for (int f = 0; f < CRON_FIELD_MAX_; f++)
    if (fields >> f & 1)
      (void)json_array_append_new(list, json_string(cron_field_names[f])); /* fails only without memory */
  put(o, "mismatch", list);
}

/* As the texts say it. */
static void put_local(const struct explaining *x, json_t *o, const char *key, const struct explain_answer *a,
                      usec_t t) {
  char local[TIME_TEXT_MAX];
  if (t)
    put(o, key, json_string(explain_local(&x->facts, a, t, local)));
}

static void put_instant(const struct explaining *x, json_t *o, const struct explain_answer *a) {
  char local[TIME_TEXT_MAX];
  if (!a->at)
    return;
  put_time(o, "at", a->at);
  bool left_out =
      a->code == EXPLAIN_DST_LEFT_OUT || a->code == EXPLAIN_DST_SKIPPED || a->code == EXPLAIN_DST_MADE_UP;
  if (left_out) { /* no offset makes it an instant */
    (void)time_format(a->local_sec * USEC_PER_SEC, local);
    local[strlen(local) - 1] = '\0';
    put(o, "local", json_string(local));
  } else {
    put_local(x, o, "local", a, a->at);
  }
  put_time(o, "due_at", a->due);
}

static void add_item(struct explaining *x, const struct explain_answer *a) {
  auto_str text;
  str_init(&text, 8192);
  explain_text(&x->facts, a, x->lang, &text);
  json_t *o = json_object();
  put_instant(x, o, a);
  put(o, "code", json_string(explain_code_names[a->code]));
  put(o, "verdict", json_string(explain_verdict_names[explain_verdict_of(a->code)]));
  put_text(o, "text", str_slice(&text));
  put_notes(x, o, a);
  if (a->run) {
    if (a->late_from)
      put_ms(o, "late_ms", a->run->run.fired_at - a->late_from);
    put_run(x, o, a->run);
    put_key(o, "behind", a->behind);
    put_parts(x, o, a);
  }
  put_version(o, "version", a->version);
  put_version(o, "change", a->change);
  put_version(o, "other", a->other);
  if (a->mismatch)
    put_mismatch(o, a->mismatch);
  put_time(o, "previous_at", a->previous);
  put_local(x, o, "previous_local", a, a->previous);
  put_time(o, "next_at", a->next);
  put_local(x, o, "next_local", a, a->next);
  if (a->code == EXPLAIN_NOT_DECIDED)
    put_time(o, "decided_until", x->facts.decided_at);
  if (a->code == EXPLAIN_RECORD_DROPPED)
    put_time(o, "kept_since", x->facts.kept_since);
  (void)json_array_append_new(x->items, o); /* fails only without memory */
}

static json_t *document(const struct explaining *x) {
  json_t *doc = json_object();
  put_id(doc, "task_id", x->task.v.task_id);
  put_text(doc, "task_name", x->task.v.name);
  put_text(doc, "namespace", x->task.ns);
  put_time(doc, "now", x->facts.now);
  return doc;
}

/* ------------------------------------------------------------------ the present */

static void put_last(const struct explaining *x, const struct explain_answer *a) {
  json_t *o = json_array_get(x->items, 0);
  for (size_t i = 0; i < x->facts.before_count; i++) {
    const struct run_row *r = &x->facts.before[i];
    if (run_state_ended(r->state)) {
      put(o, "last", run_json(r, x->task.v.name, x->task.ns, false));
      put_local(x, o, "last_local", a, r->key.scheduled_at);
      return;
    }
  }
}

static int present(struct explaining *x) {
  struct call *c = x->c;
  struct task_call tc = call_task(c);
  struct explain_answer a;
  usec_t now = c->api->o.clock->wall(c->api->o.clock); /* only for which versions are read */
  struct explain_span span = {.from = now, .to = now};
  int r = task_explain_facts(c->api->o.tasks, &tc, &x->task, &span, &x->facts);
  if (r < 0 || (r = run_explain_open(c->api->o.runs, &x->facts, &c->mem, &c->e)) < 0)
    return r;
  explain_present(&x->facts, &c->mem, &a);
  add_item(x, &a);
  put_last(x, &a);
  json_t *doc = document(x);
  put(doc, "items", json_incref(x->items));
  return call_json(c, 200, doc);
}

/* ------------------------------------------------------------------ instants */

static int bad_query(struct call *c, const char *parameter, int r) {
  char text[sizeof c->e.text];
  memcpy(text, c->e.text, sizeof text);
  return err_field(&c->e, r, parameter, "%s", text);
}

/* The instants of a span; when there is none, span->at itself. */
static int answer_span(struct explaining *x, const struct explain_span *s, bool *more) {
  struct call *c = x->c;
  struct explain_answer a;
  int r = run_explain_at(c->api->o.runs, s, &x->facts, &c->mem, &c->e);
  if (r < 0)
    return r == ERR_LIMIT ? bad_query(c, c->query[Q_within].i ? "?within" : "?at", ERR_INVALID) : r;
  struct explain_range range = {s->from, s->to, EXPLAIN_ITEMS_MAX - json_array_size(x->items), false};
  usec_t alone[] = {s->at}, *instants = NULL;
  size_t n = s->from == s->to ? 0 : explain_instants(&x->facts, &range, &c->mem, &instants);
  if (n == 0 && !range.more && range.max) {
    instants = alone;
    n = 1;
  }
  for (size_t i = 0; i < n; i++) {
    explain_instant(&x->facts, instants[i], &c->mem, &a);
    add_item(x, &a);
  }
  *more = *more || range.more;
  return 0;
}

/* A local time that comes twice is two instants; one that does not come at all is explained, and what is made up for it. */
static int answer_question(struct explaining *x, const struct explain_span *s, bool *more) {
  struct explain_span next = *s;
  if (s->left_out) {
    struct explain_answer a;
    explain_left_out(&x->facts, s->local_sec, s->at, &a);
    add_item(x, &a);
    next.from = next.to = next.at = a.next;
    return a.code == EXPLAIN_DST_MADE_UP ? answer_span(x, &next, more) : 0;
  }
  int r = answer_span(x, s, more);
  if (r < 0 || !s->twin)
    return r;
  next.from += s->twin - s->at;
  next.to += s->twin - s->at;
  next.at = s->twin;
  return answer_span(x, &next, more);
}

static int kept_since(struct explaining *x) {
  struct call *c = x->c;
  struct namespace_row ns;
  int r = access_namespace_get(c->api->o.access, x->task.ns, &ns, &c->mem, &c->e);
  if (r < 0)
    return r;
  usec_t age = ns.retention_age >= 0 ? ns.retention_age : c->api->o.retention_age;
  x->facts.kept_since = age && age < x->facts.now ? x->facts.now - age : 0;
  return 0;
}

static int instants(struct explaining *x) {
  struct call *c = x->c;
  struct task_call tc = call_task(c);
  struct explain_span span, all;
  struct task_explain_at at = {c->query[Q_at].s, c->query[Q_within].i};
  int r = task_explain_span(c->api->o.tasks, &x->task, &at, &span, &c->e);
  if (r < 0)
    return bad_query(c, "?at", r);
  all = span;
  if (span.twin)
    all.to += span.twin - span.at;
  r = task_explain_facts(c->api->o.tasks, &tc, &x->task, &all, &x->facts);
  if (r < 0 || (r = kept_since(x)) < 0)
    return r;
  bool more = all.to < span.to;
  if (more)
    span.to = all.to;
  if ((r = answer_question(x, &span, &more)) < 0)
    return r;
  json_t *doc = document(x);
  put_time(doc, "from", span.from);
  put_time(doc, "to", span.to);
  put(doc, "items", json_incref(x->items));
  put(doc, "more", json_boolean(more));
  return call_json(c, 200, doc);
}

int on_tasks_explain(struct call *c) {
  struct explaining x = {.c = c, .lang = (enum cron_lang)c->query[Q_lang].i};
  struct task_call tc = call_task(c);
  if (c->query[Q_within].i && !c->query[Q_at].there)
    return err_field(&c->e, ERR_INVALID, "?within", "expected together with at");
  int r = task_explain_find(c->api->o.tasks, &tc, call_task_ref(c, c->param[0]), &x.task);
  if (r < 0)
    return r;
  x.facts.task_id = x.task.v.task_id;
  x.items = json_array();
  r = run_explain_decided(c->api->o.runs, x.task.v.shard, &x.facts, &c->mem, &c->e);
  if (r >= 0)
    r = c->query[Q_at].there ? instants(&x) : present(&x);
  task_explain_done(&x.facts);
  json_decref(x.items);
  return r;
}
