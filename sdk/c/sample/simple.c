#include "sample.h"

enum { PAYLOAD_MAX = 4 * 1024 * 1024, STEPS_MAX = 1000, TEXT_MAX = 4096 };

void bad_payload(struct kelou_run *r, const struct err *e) {
  auto_str s;
  str_init(&s, sizeof *e + 64);
  str_addf(&s, "%s%s%s", e->field, e->field[0] ? ": " : "", e->text);
  kelou_fail(r, "BAD_PAYLOAD", s.p, NULL);
}

json_t *payload_object(struct kelou_run *r) {
  struct err e = {0};
  json_t *doc = NULL;
  int code = json_read(slice_n(kelou_payload(r), kelou_payload_size(r)), PAYLOAD_MAX, &doc, &e);
  if (code == 0 && json_is_null(doc)) {
    json_decref(doc);
    return json_object();
  }
  if (code == 0)
    code = json_want_object(doc, "", &e);
  if (code == 0)
    return doc;
  json_decref(doc);
  bad_payload(r, &e);
  return NULL;
}

void do_echo(struct kelou_run *r, void *user) {
  (void)user;
  kelou_run_log(r, KELOU_INFO, "echo: %.200s", kelou_payload(r));
  (void)kelou_succeed(r, kelou_payload(r)); /* it is JSON */
}

void do_sleep(struct kelou_run *r, void *user) {
  (void)user;
  struct err e = {0};
  int64_t ms = 1000, steps = 1;
  auto_json *doc = payload_object(r);
  if (!doc)
    return;
  if (json_get_i64(doc, "ms", 0, 86400000, &ms, &e) < 0 ||
      json_get_i64(doc, "steps", 1, STEPS_MAX, &steps, &e) < 0) {
    bad_payload(r, &e);
    return;
  }
  for (int64_t i = 0; i < steps; i++) {
    if (kelou_sleep(r, ms * USEC_PER_MS / steps)) {
      kelou_stopped(r);
      return;
    }
    if (i + 1 < steps)
      kelou_progress(r, (double)(i + 1) / (double)steps);
  }
  auto_str result;
  str_init(&result, 64);
  str_addf(&result, "{\"slept_ms\":%lld}", (long long)ms);
  (void)kelou_succeed(r, result.p); /* it is JSON */
}

void do_fail(struct kelou_run *r, void *user) {
  (void)user;
  struct err e = {0};
  int64_t times = INT32_MAX;
  struct slice message = SLICE("asked to fail");
  auto_json *doc = payload_object(r);
  if (!doc)
    return;
  if (json_get_i64(doc, "times", 0, INT32_MAX, &times, &e) < 0 ||
      json_get_slice(doc, "message", TEXT_MAX, &message, &e) < 0) {
    bad_payload(r, &e);
    return;
  }
  auto_str text;
  str_init(&text, 2 * TEXT_MAX);
  if (kelou_attempt(r) <= times) {
    str_add(&text, message);
    kelou_fail(r, "ASKED", text.p, NULL);
  } else {
    str_addf(&text, "{\"attempt\":%d}", kelou_attempt(r));
    (void)kelou_succeed(r, text.p); /* it is JSON */
  }
}
