#include "core/inbox.h"

/* `"key":"text"` after a comma; nothing for an empty text. */
static void add_text(struct str *s, const char *key, struct slice text) {
  if (!text.n)
    return;
  str_addf(s, ",\"%s\":\"", key);
  str_add_json(s, text);
  str_addc(s, '"');
}

static void add_payload(struct str *s, struct slice payload) {
  if (!payload.p)
    return;
  str_addz(s, ",\"payload\":");
  str_add(s, payload);
}

char *inbox_body(const struct inbox_item *item) {
  const struct fire_request *r = &item->request;
  struct str s;
  str_init(&s, SIZE_MAX - 1); /* every part was limited when it came in */
  if (item->kind == INBOX_EVENT) {
    event_print(&item->event, &s);
    return str_take(&s);
  }
  str_addf(&s, "{\"task_id\":%lld", (long long)r->key.task_id);
  switch (item->kind) {
  case INBOX_TRIGGER:
    str_addf(&s, ",\"scheduled_at\":%lld,\"part\":%d,\"origin\":\"%s\"", (long long)r->key.scheduled_at,
             r->key.part, run_origin_names[r->origin]);
    if (r->ignore_overlap)
      str_addz(&s, ",\"ignore_overlap\":true");
    if (r->not_before)
      str_addf(&s, ",\"not_before\":%lld", (long long)r->not_before);
    add_payload(&s, r->payload);
    add_text(&s, "pin", r->pin);
    add_text(&s, "retry_of", r->origin_run);
    break;
  case INBOX_CATCHUP:
    str_addf(&s, ",\"from\":%lld,\"to\":%lld", (long long)r->from, (long long)r->to);
    if (r->version)
      str_addf(&s, ",\"version\":%d", r->version);
    break;
  case INBOX_BACKFILL:
    str_addf(&s, ",\"from\":%lld,\"to\":%lld,\"part\":%d,\"limit\":%lld,\"interval\":%lld",
             (long long)r->from, (long long)r->to, r->key.part, (long long)r->limit, (long long)r->interval);
    add_payload(&s, r->payload);
    break;
  case INBOX_CANCEL:
  case INBOX_EVENT: break;
  }
  add_text(&s, "by", item->by);
  str_addc(&s, '}');
  return str_take(&s);
}

/* A required whole number. */
static int need_i64(const json_t *j, const char *key, int64_t min, int64_t *ret, struct err *e) {
  int r = json_get_i64(j, key, min, INT64_MAX, ret, e);
  if (r == 0)
    return err_set(e, ERR_MISSING, "an inbox row without \"%s\"", key);
  return r < 0 ? r : 0;
}

/* An optional text, copied; absent: p stays NULL. */
static int opt_text(const json_t *j, const char *key, struct arena *mem, struct slice *ret, struct err *e) {
  struct slice s;
  int r = json_get_slice(j, key, INBOX_TEXT_MAX, &s, e);
  if (r > 0)
    *ret = arena_slice(mem, s);
  return r < 0 ? r : 0;
}

static void read_payload(const json_t *j, struct arena *mem, struct fire_request *q) {
  const json_t *payload = json_object_get(j, "payload");
  if (!payload)
    return;
  auto_free char *text = json_text(payload);
  q->payload = arena_slice(mem, slice_of(text));
}

static int read_backfill(const json_t *j, struct arena *mem, struct fire_request *q, struct err *e) {
  int64_t part = 0;
  int r;
  if ((r = need_i64(j, "from", 1, &q->from, e)) < 0 || (r = need_i64(j, "to", 1, &q->to, e)) < 0 ||
      (r = need_i64(j, "part", 1, &part, e)) < 0 || (r = need_i64(j, "limit", 1, &q->limit, e)) < 0 ||
      (r = need_i64(j, "interval", 0, &q->interval, e)) < 0)
    return r;
  if (part > INT32_MAX || q->from > q->to)
    return err_set(e, ERR_INVALID, "an inbox row with a bad range or part");
  q->key.part = (int32_t)part;
  q->origin = ORIGIN_BACKFILL;
  read_payload(j, mem, q);
  return 0;
}

static int read_trigger(const json_t *j, struct arena *mem, struct fire_request *q, struct err *e) {
  int64_t part = 0;
  int origin = ORIGIN_API, r;
  if ((r = need_i64(j, "scheduled_at", 1, &q->key.scheduled_at, e)) < 0 ||
      (r = need_i64(j, "part", 1, &part, e)) < 0)
    return r;
  if (part > INT32_MAX)
    return err_set(e, ERR_INVALID, "an inbox row with a part beyond 31 bits");
  if ((r = json_get_enum(j, "origin", run_origin_names, &origin, e)) < 0 ||
      (r = json_get_bool(j, "ignore_overlap", &q->ignore_overlap, e)) < 0 ||
      (r = json_get_i64(j, "not_before", 1, INT64_MAX, &q->not_before, e)) < 0 ||
      (r = opt_text(j, "pin", mem, &q->pin, e)) < 0 ||
      (r = opt_text(j, "retry_of", mem, &q->origin_run, e)) < 0)
    return r;
  read_payload(j, mem, q);
  q->key.part = (int32_t)part;
  q->origin = (enum run_origin)origin;
  return 0;
}

static int read_catchup(const json_t *j, struct fire_request *q, struct err *e) {
  int r;
  int64_t version = 0;
  if ((r = need_i64(j, "from", 0, &q->from, e)) < 0 || (r = need_i64(j, "to", 0, &q->to, e)) < 0 ||
      (r = json_get_i64(j, "version", 1, INT32_MAX, &version, e)) < 0)
    return r;
  q->version = (int32_t)version;
  q->catch_up = true;
  q->origin = ORIGIN_CATCHUP;
  return q->from <= q->to ? 0 : err_set(e, ERR_INVALID, "an inbox row whose range ends before it begins");
}

int inbox_parse(const struct inbox_text *row, struct arena *mem, struct inbox_item *ret, struct err *e) {
  auto_json *j = NULL;
  struct inbox_item item = {.request = {.inbox_no = row->no, .key.shard = row->shard}};
  int r = json_read(row->body, INBOX_BODY_MAX, &j, e);
  if (r >= 0 && row->kind == INBOX_EVENT) {
    r = event_parse(j, mem, &item.event, e);
    if (r >= 0 && item.event.key.shard != row->shard)
      r = err_set(e, ERR_INVALID, "an inbox row for a run of another shard");
    item.kind = INBOX_EVENT;
    if (r >= 0)
      *ret = item;
    return r;
  }
  if (r < 0 || (r = json_want_object(j, "", e)) < 0 ||
      (r = need_i64(j, "task_id", 1, &item.request.key.task_id, e)) < 0 ||
      (r = opt_text(j, "by", mem, &item.by, e)) < 0)
    return r;
  switch (row->kind) {
  case INBOX_TRIGGER: r = read_trigger(j, mem, &item.request, e); break;
  case INBOX_CATCHUP: r = read_catchup(j, &item.request, e); break;
  case INBOX_BACKFILL: r = read_backfill(j, mem, &item.request, e); break;
  case INBOX_CANCEL: break;
  default: return err_set(e, ERR_INVALID, "an inbox row of the unknown kind %d", row->kind);
  }
  if (r < 0)
    return r;
  item.kind = (enum inbox_kind)row->kind;
  *ret = item;
  return 0;
}
