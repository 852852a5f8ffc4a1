#include "core/explain.h"

/* The texts of explain.def, with their values filled in. */

enum { TEXT_MAX = 8192, VALUE_MAX = 2048, ERROR_SHOWN = 300 };

struct filling {
  const struct explain_facts *f;
  const struct explain_answer *a;
  const struct task_spec *spec; /* of the version that ruled; NULL: not known */
  bool zh;
  struct str *out; /* nothing added: the value is unknown */
};

static const struct run_row *run_of(const struct filling *x) { return x->a->run ? &x->a->run->run : NULL; }

/* Whose definition the texts go by. */
static const struct task_spec *spec_of(const struct explain_facts *f, const struct explain_answer *a) {
  const struct explain_version *v = a->version ? a->version : f->newest;
  return v ? v->spec : NULL;
}

char *explain_local(const struct explain_facts *f, const struct explain_answer *a, usec_t t, char *buf) {
  const struct task_spec *spec = spec_of(f, a);
  int32_t offset = spec ? zone_offset_at(schedule_zone(spec->schedule), t) : 0;
  return offset ? time_format_offset(t, offset, buf) : time_format(t, buf);
}

/* ------------------------------------------------------------------ values: instants, in the schedule's zone */

static void instant(const struct filling *x, usec_t t) {
  char buf[TIME_TEXT_MAX];
  if (t <= 0 || t == USEC_NEVER)
    return;
  str_addz(x->out, explain_local(x->f, x->a, t, buf));
}

static void v_at(const struct filling *x) { instant(x, x->a->at); }
static void v_due(const struct filling *x) { instant(x, x->a->due); }
static void v_next(const struct filling *x) { instant(x, x->a->next); }
static void v_decided(const struct filling *x) { instant(x, x->f->decided_at); }
static void v_kept_since(const struct filling *x) { instant(x, x->f->kept_since); }
static void v_since(const struct filling *x) { instant(x, x->a->change ? x->a->change->effective_at : 0); }
static void v_resumed(const struct filling *x) { instant(x, x->a->other ? x->a->other->effective_at : 0); }
static void v_fired(const struct filling *x) { instant(x, run_of(x) ? run_of(x)->fired_at : 0); }
static void v_anchor(const struct filling *x) { instant(x, x->a->version ? x->a->version->anchor : 0); }
static void v_start_at(const struct filling *x) { instant(x, x->spec ? x->spec->start_at : 0); }
static void v_end_at(const struct filling *x) { instant(x, x->spec ? x->spec->end_at : 0); }
static void v_started(const struct filling *x) { instant(x, run_of(x) ? run_of(x)->started_at : 0); }
static void v_dispatched(const struct filling *x) { instant(x, run_of(x) ? run_of(x)->attempt_at : 0); }
static void v_release(const struct filling *x) { instant(x, run_of(x) ? run_of(x)->not_before : 0); }
static void v_first(const struct filling *x) { instant(x, run_of(x) ? run_of(x)->missed_first : 0); }
static void v_last(const struct filling *x) { instant(x, run_of(x) ? run_of(x)->key.scheduled_at : 0); }
static void v_next_due(const struct filling *x) {
  usec_t jitter = x->spec && x->a->next ? schedule_jitter(x->spec->schedule, x->f->task_id, x->a->next) : 0;
  if (jitter)
    instant(x, x->a->next + jitter);
}

/* ------------------------------------------------------------------ durations and numbers */

static void duration(const struct filling *x, usec_t d) {
  char buf[TIME_TEXT_MAX];
  str_addz(x->out, duration_format(d / USEC_PER_MS * USEC_PER_MS, buf));
}

static void v_late(const struct filling *x) {
  if (run_of(x))
    duration(x, run_of(x)->fired_at - x->a->late_from);
}
static void v_jitter(const struct filling *x) { duration(x, x->a->due - x->a->at); }
static void v_every(const struct filling *x) {
  if (x->spec)
    duration(x, x->spec->every);
}
static void v_timeout(const struct filling *x) {
  if (x->spec)
    duration(x, x->spec->timeout);
}
static void v_misfire_threshold(const struct filling *x) {
  bool paused = x->a->notes >> EXPLAIN_NOTE_AFTER_PAUSE & 1; /* then it is not why */
  if (x->spec && !paused)
    duration(x, x->spec->misfire_threshold);
}
static void v_count(const struct filling *x) { str_addi(x->out, run_of(x) ? run_of(x)->missed_count : 0); }
static void v_attempt(const struct filling *x) { str_addi(x->out, run_of(x) ? run_of(x)->attempt : 0); }
static void v_max_runs(const struct filling *x) { str_addi(x->out, x->spec ? x->spec->max_runs : 0); }
static void v_version(const struct filling *x) {
  if (x->a->version)
    str_addi(x->out, x->a->version->version);
}
static void v_change_version(const struct filling *x) {
  if (x->a->change)
    str_addi(x->out, x->a->change->version);
}
static void v_other_version(const struct filling *x) {
  if (x->a->other)
    str_addi(x->out, x->a->other->version);
}

/* ------------------------------------------------------------------ words */

static void v_by(const struct filling *x) {
  if (x->a->change)
    str_add(x->out, x->a->change->by);
}
static void v_resumed_by(const struct filling *x) {
  if (x->a->other)
    str_add(x->out, x->a->other->by);
}
static void v_remark(const struct filling *x) {
  if (x->a->change)
    str_add(x->out, x->a->change->note);
}
static void v_error(const struct filling *x) {
  const struct run_row *r = run_of(x);
  struct slice text = r && r->error_message.n ? r->error_message : r ? r->error_type : (struct slice){0};
  struct slice head = slice_utf8_head(text, ERROR_SHOWN);
  str_add(x->out, head);
  if (head.n < text.n)
    str_addz(x->out, "…");
}
static void v_executor(const struct filling *x) {
  if (run_of(x))
    str_add(x->out, run_of(x)->executor);
}
static void v_pinned(const struct filling *x) {
  struct slice pin = run_of(x) ? pin_executor(run_of(x)->pin) : (struct slice){0};
  if (pin.n)
    str_add(x->out, pin);
  else if (x->spec && x->spec->executor)
    str_addz(x->out, x->spec->executor);
}
static void v_origin_run(const struct filling *x) {
  if (run_of(x))
    str_add(x->out, run_of(x)->origin_run);
}
static void v_state(const struct filling *x) {
  if (run_of(x))
    str_addz(x->out, run_state_names[run_of(x)->state]);
}
static void key(const struct filling *x, const struct run_row *r) {
  char id[RUN_ID_LEN + 1];
  if (!r)
    return;
  run_id_format(&r->key, id);
  str_addz(x->out, id);
}
static void v_run(const struct filling *x) { key(x, run_of(x)); }
static void v_behind(const struct filling *x) { key(x, x->a->behind); }
static void v_group(const struct filling *x) { str_addz(x->out, x->spec ? x->spec->group : "?"); }
static void v_namespace(const struct filling *x) { str_addz(x->out, x->spec ? x->spec->ns : "?"); }
static void v_calendar(const struct filling *x) {
  if (x->spec && x->spec->calendar)
    str_addz(x->out, x->spec->calendar);
}
static void v_timezone(const struct filling *x) {
  if (x->spec)
    str_addz(x->out, zone_name(schedule_zone(x->spec->schedule)));
}
static void v_overlap_policy(const struct filling *x) {
  str_addz(x->out, x->spec ? overlap_policy_names[x->spec->overlap_policy] : "?");
}
static void v_misfire_policy(const struct filling *x) {
  str_addz(x->out, x->spec ? misfire_policy_names[x->spec->misfire_policy] : "?");
}
static void v_mismatch(const struct filling *x) {
  if (!x->spec)
    return;
  size_t before = x->out->n;
  schedule_mismatch_words(x->spec->schedule, x->a->local_sec, x->zh ? CRON_ZH : CRON_EN, x->out);
  if (x->out->n == before) /* all fields fit */
    str_addz(x->out, x->zh ? "时刻都在整秒上" : "its instants are at whole seconds");
}

/* ------------------------------------------------------------------ filling in */

#define VALUE(name)                                                                                          \
  { #name, v_##name }
static const struct value {
  const char *name;
  void (*add)(const struct filling *x);
} values[] = {VALUE(at),
              VALUE(due),
              VALUE(next),
              VALUE(next_due),
              VALUE(decided),
              VALUE(since),
              VALUE(resumed),
              VALUE(resumed_by),
              VALUE(fired),
              VALUE(pinned),
              VALUE(anchor),
              VALUE(start_at),
              VALUE(end_at),
              VALUE(started),
              VALUE(release),
              VALUE(first),
              VALUE(last),
              VALUE(late),
              VALUE(jitter),
              VALUE(every),
              VALUE(timeout),
              VALUE(count),
              VALUE(attempt),
              VALUE(max_runs),
              VALUE(version),
              VALUE(by),
              VALUE(remark),
              VALUE(change_version),
              VALUE(other_version),
              VALUE(error),
              VALUE(executor),
              VALUE(run),
              VALUE(state),
              VALUE(origin_run),
              VALUE(behind),
              VALUE(group),
              VALUE(namespace),
              VALUE(calendar),
              VALUE(timezone),
              VALUE(mismatch),
              VALUE(dispatched),
              VALUE(kept_since),
              VALUE(overlap_policy),
              VALUE(misfire_policy),
              VALUE(misfire_threshold)};

/* One {value}: false when it is unknown. */
static bool add_value(const struct filling *x, struct slice name, struct str *out) {
  auto_str text;
  str_init(&text, VALUE_MAX);
  struct filling to_text = *x;
  to_text.out = &text;
  for (size_t i = 0; i < sizeof values / sizeof *values; i++)
    if (slice_eqz(name, values[i].name))
      values[i].add(&to_text);
  str_add(out, str_slice(&text));
  return text.n > 0;
}

/* Text without brackets: false when one of its values is unknown. */
static bool fill(const struct filling *x, struct slice text, struct str *out) {
  bool known = true;
  while (text.n) {
    struct slice rest, name;
    str_add(out, slice_cut(text, '{', &rest));
    if (!rest.p)
      break;
    name = slice_cut(rest, '}', &text);
    known = add_value(x, name, out) && known;
  }
  return known;
}

static void fill_template(const struct filling *x, struct slice text) {
  while (text.n) {
    struct slice rest;
    (void)fill(x, slice_cut(text, '[', &rest), x->out);
    if (!rest.p)
      break;
    auto_str part;
    str_init(&part, TEXT_MAX);
    if (fill(x, slice_cut(rest, ']', &text), &part))
      str_add(x->out, str_slice(&part));
  }
}

static struct filling filling_of(const struct explain_facts *f, const struct explain_answer *a,
                                 enum cron_lang lang, struct str *out) {
  return (struct filling){f, a, spec_of(f, a), lang == CRON_ZH, out};
}

void explain_text(const struct explain_facts *f, const struct explain_answer *a, enum cron_lang lang,
                  struct str *out) {
  static const char *const texts[][CRON_LANG_MAX_] = {
#define CODE(name, verdict, en, zh) {en, zh},
#include "core/explain.def"
  };
  const struct filling x = filling_of(f, a, lang, out);
  fill_template(&x, slice_of(texts[a->code][lang]));
}

void explain_note_text(const struct explain_facts *f, const struct explain_answer *a, enum explain_note note,
                       enum cron_lang lang, struct str *out) {
  static const char *const texts[][CRON_LANG_MAX_] = {
#define NOTE(name, en, zh) {en, zh},
#include "core/explain.def"
  };
  const struct filling x = filling_of(f, a, lang, out);
  fill_template(&x, slice_of(texts[note][lang]));
}

const char *explain_part_text(enum explain_part_kind kind, enum cron_lang lang) {
  static const char *const texts[][CRON_LANG_MAX_] = {
#define PART(name, en, zh) {en, zh},
#include "core/explain.def"
  };
  return texts[kind][lang];
}
