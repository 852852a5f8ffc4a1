#include "core/event_doc.h"

enum { ATTEMPTS_MAX = 100, NAME_MAX_BYTES = 256, TEXT_MAX_BYTES = 2 * 1024 * 1024 };

static const char *const words[] = {"RUNNING", "SUCCESS", "FAIL", "CANCELLED", "CANCEL", "CLAIM", NULL};
static const enum run_event kinds[] = {EV_BEAT,           EV_DONE_OK, EV_DONE_FAIL,
                                       EV_DONE_CANCELLED, EV_CANCEL,  EV_CLAIM};

static const char *word_of(enum run_event kind) {
  for (int i = 0; words[i]; i++)
    if (kinds[i] == kind)
      return words[i];
  return NULL;
}

bool event_may_travel(const struct live_event *ev) { return word_of(ev->kind) != NULL; }

static const struct text_field {
  const char *key;
  size_t offset, max;
} texts[] = {
    {"executor", offsetof(struct live_event, executor), NAME_MAX_BYTES},
    {"namespace", offsetof(struct live_event, ns), NAME_MAX_BYTES},
    {"group", offsetof(struct live_event, group), NAME_MAX_BYTES},
    {"result", offsetof(struct live_event, result), TEXT_MAX_BYTES},
    {"error_type", offsetof(struct live_event, error_type), TEXT_MAX_BYTES},
    {"error_message", offsetof(struct live_event, error_message), TEXT_MAX_BYTES},
    {"error_detail", offsetof(struct live_event, error_detail), TEXT_MAX_BYTES},
};
enum { TEXTS = sizeof texts / sizeof *texts };

void event_print(const struct live_event *ev, struct str *out) {
  char id[RUN_ID_LEN + 1];
  run_id_format(&ev->key, id);
  str_addf(out, "{\"run_id\":\"%s\",\"event\":\"%s\",\"attempt\":%d", id, word_of(ev->kind), ev->attempt);
  for (int i = 0; i < TEXTS; i++) {
    const struct slice *s = (const void *)((const char *)ev + texts[i].offset);
    if (!s->p)
      continue; /* not said is not the same as empty: of a namespace, that it is not checked */
    str_addf(out, ",\"%s\":\"", texts[i].key);
    str_add_json(out, *s);
    str_addc(out, '"');
  }
  if (ev->incarnation)
    str_addf(out, ",\"incarnation\":%lld", (long long)ev->incarnation);
  if (ev->started_at)
    str_addf(out, ",\"started_at\":%lld", (long long)ev->started_at);
  if (ev->finished_at)
    str_addf(out, ",\"finished_at\":%lld", (long long)ev->finished_at);
  if (ev->progress >= 0)
    str_addf(out, ",\"progress\":%.17g", ev->progress);
  str_addc(out, '}');
}

static int parse_texts(const json_t *doc, struct arena *mem, struct live_event *ev, struct err *e) {
  for (int i = 0; i < TEXTS; i++) {
    struct slice s, *to = (void *)((char *)ev + texts[i].offset);
    int r = json_get_slice(doc, texts[i].key, texts[i].max, &s, e);
    if (r < 0)
      return r;
    if (r > 0)
      *to = arena_slice(mem, s);
  }
  return 0;
}

static int parse_key(const json_t *doc, struct live_event *ev, struct err *e) {
  struct slice id = {0};
  int64_t attempt = 0;
  int kind = 0, r = json_get_slice(doc, "run_id", 64, &id, e);
  if (r == 0)
    return err_field(e, ERR_MISSING, "/run_id", "expected the run's id");
  if (r > 0 && run_id_parse(id, &ev->key, e) < 0)
    return err_field(e, ERR_INVALID, "/run_id", "expected the run's id");
  if (r >= 0 && (r = json_get_enum(doc, "event", words, &kind, e)) == 0)
    return err_field(e, ERR_MISSING, "/event", "expected what has happened");
  if (r >= 0 && (r = json_get_i64(doc, "attempt", 0, ATTEMPTS_MAX, &attempt, e)) == 0)
    return err_field(e, ERR_MISSING, "/attempt", "expected the attempt");
  if (r < 0)
    return r;
  if (attempt == 0 && kinds[kind] != EV_CANCEL)
    return err_field(e, ERR_INVALID, "/attempt", "expected the attempt that was delivered");
  ev->kind = kinds[kind];
  ev->attempt = (int32_t)attempt;
  return 0;
}

int event_parse(const json_t *doc, struct arena *mem, struct live_event *ret, struct err *e) {
  struct live_event ev = {.progress = -1};
  int r = json_want_object(doc, "", e);
  if (r >= 0)
    r = parse_key(doc, &ev, e);
  if (r >= 0)
    r = parse_texts(doc, mem, &ev, e);
  if (r >= 0)
    r = json_get_i64(doc, "incarnation", 1, INT64_MAX, &ev.incarnation, e);
  if (r >= 0)
    r = json_get_i64(doc, "started_at", 1, INT64_MAX, &ev.started_at, e);
  if (r >= 0)
    r = json_get_i64(doc, "finished_at", 1, INT64_MAX, &ev.finished_at, e);
  if (r >= 0)
    r = json_get_double(doc, "progress", 0, 1, &ev.progress, e);
  if (r < 0)
    return r;
  *ret = ev;
  return 0;
}
