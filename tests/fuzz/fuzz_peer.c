/* What one node brings to another one, as it comes from the peer link or from the inbox: report/forward.c with another run_post in its place,
 * and core/event_doc.c there and back. */
#include "base/json.h"
#include "core/event_doc.h"
#include "core/inbox.h"
#include "fuzz.h"
#include "report/forward.h"

static int answers;
static bool busy;

static void there_and_back(const struct live_event *ev) {
  auto_arena mem = {0};
  auto_free char *body = inbox_body(&(struct inbox_item){.kind = INBOX_EVENT, .event = *ev});
  struct inbox_text row = {.shard = ev->key.shard, .kind = INBOX_EVENT, .no = 1, .body = slice_of(body)};
  struct inbox_item item;
  if (row.body.n > INBOX_BODY_MAX)
    return;
  assert(inbox_parse(&row, &mem, &item, NULL) == 0 && item.kind == INBOX_EVENT);
  const struct live_event *b = &item.event;
  assert(b->kind == ev->kind && b->attempt == ev->attempt && run_key_eq(&b->key, &ev->key));
  assert(slice_eq(b->executor, ev->executor) && slice_eq(b->ns, ev->ns) && slice_eq(b->group, ev->group));
  assert(slice_eq(b->result, ev->result) && slice_eq(b->error_type, ev->error_type));
  assert(slice_eq(b->error_message, ev->error_message) && slice_eq(b->error_detail, ev->error_detail));
  assert(!b->ns.p == !ev->ns.p && !b->group.p == !ev->group.p && !b->result.p == !ev->result.p);
  assert(b->started_at == ev->started_at && b->finished_at == ev->finished_at);
  assert(b->progress <= ev->progress && b->progress >= ev->progress);
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
    assert(event_may_travel(&events[i]) && !events[i].token);
    there_and_back(&events[i]);
    results[i] = (enum run_result)(events[i].attempt % (RUN_RESULT_NOT_OWNER + 1));
  }
  done(arg, results, n);
  return 0;
}

static void reply(void *arg, struct slice answer) {
  auto_json *doc = NULL;
  (void)arg;
  assert(json_read(answer, answer.n, &doc, NULL) == 0 &&
         json_array_size(json_object_get(doc, "answers")) > 0);
  answers++;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct forward_options o;
  static struct forward *f;
  auto_json *doc = NULL;
  struct err e = {0};
  if (!f)
    f = forward_new(&o);
  if (!size || json_read(fuzz_slice(data + 1, size - 1), size, &doc, NULL) < 0)
    return 0;
  busy = data[0] == '!';
  answers = 0;
  int r = forward_take(f, doc, reply, NULL, &e);
  if (r < 0)
    fuzz_check_error(r, &e);
  assert(answers == (r >= 0));
  return 0;
}
