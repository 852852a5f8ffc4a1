#include "internal.h"
#include "base/parse.h"

enum { MESSAGE_BYTES_MAX = 4 * 1024 * 1024, CANCEL_BYTES_MAX = 4096, TEXT_BYTES_MAX = 1024 };

void message_free(struct message **m) {
  if (!*m)
    return;
  json_decref((*m)->doc);
  mem_free((*m)->payload);
  mem_freep(m);
}

/* A text that lives as long as the document; "" when it is not there. */
static int text(const json_t *doc, const char *key, const char **ret, struct err *e) {
  struct slice s = SLICE("");
  int r = json_get_slice(doc, key, TEXT_BYTES_MAX, &s, e);
  if (r >= 0)
    *ret = s.p; /* terminated by jansson */
  return r;
}

static int number(const json_t *doc, const char *key, int64_t min, int *ret, struct err *e) {
  int64_t v = *ret;
  int r = json_get_i64(doc, key, min, INT32_MAX, &v, e);
  if (r >= 0)
    *ret = (int)v;
  return r;
}

static int missing(const char *field, struct err *e) {
  return err_field(e, ERR_MISSING, field, "this field is required");
}

/* Ids go into texts and journals as they are. */
static int read_run_id(const json_t *doc, const char **ret, struct err *e) {
  int r = text(doc, "run_id", ret, e);
  if (r < 0)
    return r;
  size_t n = strlen(*ret);
  bool good = n >= 1 && n <= RUN_ID_BYTES_MAX;
  for (const char *p = *ret; good && *p; p++)
    good = (*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
           strchr("_.:-", *p);
  return good ? 0
              : err_field(e, ERR_INVALID, "/run_id", "expected 1 to %d characters A-Z a-z 0-9 _ . : -",
                          RUN_ID_BYTES_MAX);
}

static int read_claim(const json_t *doc, int *ret_attempt, int64_t *ret_fence, struct err *e) {
  int r = number(doc, "attempt", 1, ret_attempt, e);
  if (r == 0)
    r = missing("/attempt", e);
  if (r > 0 && (r = json_get_i64(doc, "fence", 0, INT64_MAX, ret_fence, e)) == 0)
    r = missing("/fence", e);
  return r;
}

static int read_texts(const json_t *doc, struct message *m, struct err *e) {
  const struct {
    const char *key, **to;
  } texts[] = {{"idempotency_key", &m->idempotency_key},
               {"task_id", &m->task_id},
               {"task_name", &m->task_name},
               {"namespace", &m->ns},
               {"traceparent", &m->traceparent},
               {"parent_run_id", &m->parent_run_id},
               {"handler", &m->handler}};
  int r = 0;
  for (size_t i = 0; r >= 0 && i < sizeof texts / sizeof *texts; i++)
    r = text(doc, texts[i].key, texts[i].to, e);
  return r < 0 ? r : m->handler[0] ? 0 : missing("/handler", e);
}

static int read_numbers(const json_t *doc, struct message *m, struct err *e) {
  int r = number(doc, "max_attempts", 0, &m->max_attempts, e);
  if (r >= 0)
    r = number(doc, "priority", INT32_MIN, &m->priority, e);
  if (r >= 0)
    r = number(doc, "part_index", 0, &m->part_index, e);
  if (r >= 0)
    r = number(doc, "part_total", 1, &m->part_total, e);
  if (r >= 0)
    r = json_get_time(doc, "scheduled_at", &m->scheduled_at, e);
  if (r >= 0)
    r = json_get_time(doc, "fired_at", &m->fired_at, e);
  if (r >= 0)
    r = json_get_time(doc, "deadline", &m->deadline, e);
  if (r >= 0)
    r = json_get_bool(doc, "exactly_one_start", &m->exactly_one_start, e);
  return r;
}

static int read_all(struct message *m, struct err *e) {
  int r = json_want_object(m->doc, "", e);
  if (r >= 0)
    r = read_run_id(m->doc, &m->run_id, e);
  if (r >= 0)
    r = read_claim(m->doc, &m->attempt, &m->fence, e);
  if (r >= 0)
    r = read_texts(m->doc, m, e);
  if (r >= 0)
    r = read_numbers(m->doc, m, e);
  return r;
}

int message_read(struct slice body, struct message **ret, struct err *e) {
  json_t *doc;
  int r = json_read(body, MESSAGE_BYTES_MAX, &doc, e);
  if (r < 0)
    return r;
  struct message *m = mem_zalloc(sizeof *m);
  m->doc = doc;
  m->part_total = 1;
  m->deadline = USEC_NEVER;
  r = read_all(m, e);
  if (r < 0) {
    message_free(&m);
    return r;
  }
  if (!m->idempotency_key[0])
    m->idempotency_key = m->run_id;
  const json_t *payload = json_object_get(doc, "payload");
  m->payload = payload ? json_text(payload) : mem_strdup("null");
  m->payload_n = strlen(m->payload);
  *ret = m;
  return 0;
}

int cancel_message_read(struct slice body, struct cancel_message *ret, struct err *e) {
  static const char *const keys[] = {"run_id", "attempt", "fence", NULL};
  auto_json *doc = NULL;
  struct cancel_message m = {0};
  const char *id = NULL;
  int r = json_read(body, CANCEL_BYTES_MAX, &doc, e);
  if (r >= 0)
    r = json_want_object(doc, "", e);
  if (r >= 0)
    r = json_check_keys(doc, keys, e);
  if (r >= 0)
    r = read_run_id(doc, &id, e);
  if (r >= 0)
    r = read_claim(doc, &m.attempt, &m.fence, e);
  if (r < 0)
    return r;
  (void)text_copy(m.run_id, sizeof m.run_id, slice_of(id)); /* checked */
  *ret = m;
  return 0;
}
