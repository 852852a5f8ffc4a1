/* Events become alerts: rules are asked, failures of one task are grouped by window. */
#include "base/log.h"
#include "monitor/internal.h"

enum { EVENTS = 64 };

/* One rule, channel and task: its latest alert as this batch knows it. */
struct slot {
  struct alert_key key;
  struct alert_row latest;
  size_t made;        /* 1 + its place among the new ones; 0: it is in the database */
  int64_t seen_count; /* of one that is in the database and gets more; 0 = untouched */
};
struct batch {
  struct arena *mem;
  usec_t now;
  const struct alert_event *events;
  size_t event_count;
  struct rule_filter *rules;
  size_t rule_count;
  struct st_alert_def_list_ret channels;
  struct slot *slots;
  size_t slot_count, slot_cap;
  struct alert_row *made;
  size_t made_count, made_cap;
};

static const struct alert_def_row *find_channel(const struct batch *b, struct slice ns, const char *name) {
  for (size_t i = 0; i < b->channels.count; i++)
    if (slice_eq(b->channels.rows[i].ns, ns) && slice_eqz(b->channels.rows[i].name, name))
      return &b->channels.rows[i];
  return NULL;
}

static bool channel_enabled(const struct alert_def_row *c) {
  auto_json *doc = NULL;
  bool enabled = true;
  if (json_read(c->definition, 64 * 1024, &doc, NULL) >= 0)
    (void)json_get_bool(doc, "enabled", &enabled, NULL); /* ours */
  return enabled;
}

/* Every (rule, channel) that wants an event is visited twice: for the slots, then for the alerts. */
static void each_wanted(struct batch *b,
                        void (*visit)(struct batch *b, const struct alert_event *v,
                                      const struct rule_filter *r, const struct alert_def_row *c)) {
  for (size_t i = 0; i < b->event_count; i++)
    for (size_t k = 0; k < b->rule_count; k++) {
      const struct rule_filter *r = &b->rules[k];
      for (size_t n = 0; rule_wants(r, &b->events[i]) && n < json_array_size(r->channels); n++) {
        const char *name = json_string_value(json_array_get(r->channels, n));
        const struct alert_def_row *c = find_channel(b, r->ns, name);
        if (!c)
          log_warn("an alert rule names a channel that is not there", LF_L("rule", r->name),
                   LF_S("channel", name));
        else if (channel_enabled(c))
          visit(b, &b->events[i], r, c);
      }
    }
}

static struct slot *find_slot(struct batch *b, const struct alert_key *k) {
  for (size_t i = 0; i < b->slot_count; i++) {
    const struct alert_key *have = &b->slots[i].key;
    if (have->task_id == k->task_id && have->rule_id == k->rule_id && have->channel_id == k->channel_id)
      return &b->slots[i];
  }
  return NULL;
}

static void note_slot(struct batch *b, const struct alert_event *v, const struct rule_filter *r,
                      const struct alert_def_row *c) {
  struct alert_key key = {r->id, c->id, v->run.key.task_id};
  if (find_slot(b, &key))
    return;
  mem_reserve(b->slots, b->slot_count, b->slot_cap);
  b->slots[b->slot_count++] = (struct slot){.key = key};
}

static void make_alert(struct batch *b, struct slot *s, const struct alert_event *v,
                       const struct rule_filter *r, const struct alert_def_row *c, bool summary) {
  usec_t due = summary ? s->latest.window_until : b->now;
  mem_reserve(b->made, b->made_count, b->made_cap);
  b->made[b->made_count++] = s->latest = (struct alert_row){.key = s->key,
                                                            .seq = s->latest.seq + 1,
                                                            .summary = summary,
                                                            .count = 1,
                                                            .first_at = v->run.finished_at,
                                                            .last_at = v->run.finished_at,
                                                            .window_until = due + r->window,
                                                            .created_at = b->now,
                                                            .next_at = due,
                                                            .ns = v->ns,
                                                            .rule = r->name,
                                                            .channel = c->name,
                                                            .task_name = v->task_name};
  s->made = b->made_count;
}

static void take_event(struct batch *b, const struct alert_event *v, const struct rule_filter *r,
                       const struct alert_def_row *c) {
  struct slot *s = find_slot(b, &(struct alert_key){r->id, c->id, v->run.key.task_id});
  enum alert_step step = alert_step(&s->latest, b->now);
  auto_free char *details = alert_details(v);
  if (step == ALERT_ADD) {
    s->seen_count = s->seen_count ? s->seen_count : s->latest.count;
    s->latest.count++;
    s->latest.last_at = v->run.finished_at;
  } else {
    make_alert(b, s, v, r, c, step == ALERT_SUMMARY);
  }
  s->latest.details = arena_slice(b->mem, slice_of(details));
  if (s->made)
    b->made[s->made - 1] = s->latest;
}

static int write_batch(struct alerts *a, struct batch *b, struct err *e) {
  int64_t *nos = arena_array(b->mem, b->event_count, sizeof *nos);
  struct alert_bump *bumps = arena_array(b->mem, b->slot_count + 1, sizeof *bumps);
  size_t bump_count = 0;
  for (size_t i = 0; i < b->event_count; i++)
    nos[i] = b->events[i].no;
  for (size_t i = 0; i < b->made_count; i++)
    b->made[i].give_up_at = b->made[i].next_at + a->o.retry_for;
  for (size_t i = 0; i < b->slot_count; i++) {
    const struct slot *s = &b->slots[i];
    if (s->seen_count && !s->made)
      bumps[bump_count++] = (struct alert_bump){s->latest.id, s->seen_count, s->latest.count,
                                                s->latest.last_at, s->latest.details};
  }
  struct st_alert_apply in = {.events = nos,
                              .event_count = b->event_count,
                              .alerts = b->made,
                              .alert_count = b->made_count,
                              .bumps = bumps,
                              .bump_count = bump_count};
  struct st_alert_apply_ret none;
  return store_alert_apply(a->o.store, &in, &none, b->mem, e);
}

static int read_rules(struct alerts *a, struct batch *b, struct err *e) {
  struct st_alert_def_list_ret rules;
  struct err bad = {0};
  int r = store_alert_def_list(a->o.store, &(struct st_alert_def_list){.kind = ALERT_DEF_RULE}, &rules,
                               b->mem, e);
  if (r >= 0)
    r = store_alert_def_list(a->o.store, &(struct st_alert_def_list){.kind = ALERT_DEF_CHANNEL}, &b->channels,
                             b->mem, e);
  if (r < 0)
    return r;
  b->rules = arena_array(b->mem, rules.count + 1, sizeof *b->rules);
  for (size_t i = 0; i < rules.count; i++)
    if (rule_read(&rules.rows[i], &b->rules[b->rule_count], &bad) >= 0)
      b->rule_count++;
    else
      log_error("an alert rule cannot be read", LF_L("rule", rules.rows[i].name), LF_E(&bad));
  return 0;
}

static int read_latest(struct alerts *a, struct batch *b, struct err *e) {
  struct alert_key *keys = arena_array(b->mem, b->slot_count + 1, sizeof *keys);
  struct st_alert_latest_ret latest;
  for (size_t i = 0; i < b->slot_count; i++)
    keys[i] = b->slots[i].key;
  if (!b->slot_count)
    return 0;
  int r = store_alert_latest(a->o.store, &(struct st_alert_latest){keys, b->slot_count}, &latest, b->mem, e);
  for (size_t i = 0; r >= 0 && i < b->slot_count; i++)
    b->slots[i].latest = latest.rows[i];
  return r;
}

int alerts_absorb(struct alerts *a, struct err *e) {
  auto_arena mem = {0};
  struct batch b = {.mem = &mem, .now = a->o.now(a->o.now_arg)};
  struct st_alert_events_ret read;
  int r = store_alert_events(a->o.store, &(struct st_alert_events){EVENTS}, &read, &mem, e);
  if (r < 0 || !read.count)
    return r;
  b.events = read.rows;
  b.event_count = read.count;
  r = read_rules(a, &b, e);
  if (r >= 0) {
    each_wanted(&b, note_slot);
    r = read_latest(a, &b, e);
  }
  if (r >= 0) {
    each_wanted(&b, take_event);
    r = write_batch(a, &b, e);
  }
  for (size_t i = 0; i < b.rule_count; i++)
    rule_done(&b.rules[i]);
  mem_free(b.slots);
  mem_free(b.made);
  return r < 0 ? r : 1;
}
