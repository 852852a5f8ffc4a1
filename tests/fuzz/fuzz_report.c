/* POST /api/v1/reports, without connection, run service and log writer: meson.build compiles report/intake.c with these put in their
 * place. */
#include "base/json.h"
#include "fuzz.h"
#include "net/http_server.h"
#include "report/forward.h"
#include "report/intake.h"

static int status; /* of the answer; 0: none yet */
static bool busy, logs_busy;

/* Touch every byte: each must be there. */
static size_t touch(struct slice s) {
  size_t sum = s.n;
  for (size_t i = 0; i < s.n; i++)
    sum += (unsigned char)s.p[i];
  return sum;
}

int fuzz_logs_post(struct logs *l, const struct log_entry *entries, size_t n,
                   void (*done)(void *arg, const enum log_result *results, size_t n), void *arg,
                   struct err *e) {
  static enum log_result results[1000];
  (void)l;
  if (busy || logs_busy)
    return err_set(e, ERR_BUSY, "too many lines are waiting");
  assert(n >= 1 && n <= 1000);
  for (size_t i = 0; i < n; i++) {
    assert(entries[i].count >= 1 && entries[i].count <= 1000);
    for (size_t k = 0; k < entries[i].count; k++) {
      const struct log_line *line = &entries[i].lines[k];
      volatile size_t sum = touch(line->text) + touch(entries[i].ns) + touch(entries[i].group);
      (void)sum;
      assert(line->seq >= 1 && line->attempt >= 1 && line->attempt <= 100 && line->cut >= 0);
      assert(line->level < RUN_LOG_LEVEL_MAX_ && line->text.n <= 64 && slice_utf8_valid(line->text));
    }
    results[i] = (enum log_result)(entries[i].lines[0].seq % (LOG_RESULT_RETRY + 1));
  }
  done(arg, results, n);
  return 0;
}

int fuzz_run_post(struct run_service *s, const struct live_event *events, size_t n,
                  void (*done)(void *arg, const enum run_result *results, size_t n), void *arg,
                  struct err *e) {
  static enum run_result results[1000];
  (void)s;
  if (busy)
    return err_set(e, ERR_BUSY, "too many reports are waiting");
  assert(n >= 1 && n <= 1000);
  for (size_t i = 0; i < n; i++) {
    const struct live_event *ev = &events[i];
    volatile size_t sum = touch(ev->executor) + touch(ev->ns) + touch(ev->group) + touch(ev->result) +
                          touch(ev->error_type) + touch(ev->error_message) + touch(ev->error_detail);
    (void)sum;
    assert(ev->attempt >= 1 && ev->attempt <= 100 && ev->progress >= -1 && ev->progress <= 1);
    assert(ev->result.n <= 64 && ev->error_message.n <= 64 && ev->error_detail.n <= 64);
    assert(slice_utf8_valid(ev->result) && slice_utf8_valid(ev->error_message));
    results[i] = (enum run_result)(ev->attempt % (RUN_RESULT_NOT_OWNER + 1));
  }
  done(arg, results, n);
  return 0;
}

void fuzz_reply(struct http_request *r, const struct http_reply *reply) {
  (void)r;
  assert(status == 0);
  status = reply->status;
  assert(status == 200 || status == 403 || status == 503);
  auto_json *doc = NULL;
  assert(json_read(reply->body, 1024 * 1024, &doc, NULL) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct intake *in;
  if (!in) {
    struct intake_options o;
    intake_options_default(&o);
    o.max_result_bytes = 64;
    o.max_line_bytes = 64;
    static struct forward_options here; /* one node: everything is ours */
    o.forward = forward_new(&here);
    in = intake_new(&o);
  }
  if (!size)
    return 0;
  struct http_request request = {.method = SLICE("POST"), .body = fuzz_slice(data + 1, size - 1), .peer = ""};
  struct access_identity who = {.role = ROLE_EXECUTOR, .ns = "default", .group = "g"};
  struct err e = {0};
  busy = data[0] == '!';
  logs_busy = data[0] == '?';
  status = 0;
  int r = intake_http(in, &request, &who, &e);
  if (r < 0) {
    fuzz_check_error(r, &e);
    assert(status == 0);
  } else {
    assert(status != 0);
  }
  return 0;
}
