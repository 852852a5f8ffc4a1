/* What the centre says to this executor: run, cancel, ping. All on the loop thread. */
#include "internal.h"
#include "net/crypto.h"
#include "net/http_server.h"
#include <stdio.h>

enum { PROBLEM_MAX = 4096 };

static void answer(struct http_request *req, int status, const char *type, struct slice body) {
  struct http_header again = {SLICE("Retry-After"), SLICE("1")};
  bool busy = status == 429 || status == 503;
  struct http_reply r = {
      .status = status, .content_type = type, .headers = &again, .header_count = busy, .body = body};
  http_request_reply(req, &r);
}

static void empty(struct http_request *req, int status) { answer(req, status, NULL, (struct slice){0}); }

static void problem(struct http_request *req, const struct err *e) {
  auto_str out;
  int status = err_http(e->code);
  str_init(&out, PROBLEM_MAX);
  str_addf(&out,
           "{\"type\":\"urn:kelou:problem:%s\",\"title\":\"%s\",\"status\":%d,\"code\":\"%s\",\"detail\":\"",
           err_name(e->code), err_title(e->code), status, err_name(e->code));
  str_add_json(&out, slice_of(e->text));
  str_addz(&out, "\"");
  if (e->field[0]) {
    str_addz(&out, ",\"errors\":[{\"pointer\":\"");
    str_add_json(&out, slice_of(e->field));
    str_addz(&out, "\"}]");
  }
  str_addz(&out, "}");
  answer(req, status, "application/problem+json", str_slice(&out));
}

static const struct kelou_handler *handler_of(const struct kelou_executor *e, const char *name) {
  const struct kelou_handler *any = NULL;
  for (size_t i = 0; i < e->o.handler_count; i++) {
    if (strcmp(e->o.handlers[i].name, name) == 0)
      return &e->o.handlers[i];
    if (strcmp(e->o.handlers[i].name, "*") == 0)
      any = &e->o.handlers[i];
  }
  return any;
}

/* ---------------------------------------------------------------- run */

/* The same attempt again. */
static void on_repeated(struct kelou_executor *e, struct http_request *req, struct kelou_run *known,
                        bool ended) {
  if (!ended) {
    empty(req, 202);
  } else if (known->said == SAID_ANSWER) {
    answer(req, 200, "application/json", slice_n(known->report, known->report_n));
  } else if (known->said == SAID_NOTHING) {
    empty(req, 503); /* this process ends */
  } else {
    outbox_push(e->outbox, known, true);
    empty(req, 202);
  }
}

/* A claim is waited for: not on the loop. */
static bool needs_slot(const struct kelou_handler *h, const struct message *m) {
  return !(h->flags & KELOU_INLINE) || m->exactly_one_start;
}

static void on_new(struct kelou_executor *e, struct http_request *req, struct kelou_run *r) {
  if (needs_slot(r->handler, r->message)) {
    slots_submit(e->slots, r);
    empty(req, 202);
    return;
  }
  run_perform(r, e->o.answer_inline);
  if (r->said == SAID_ANSWER)
    answer(req, 200, "application/json", slice_n(r->report, r->report_n));
  else
    empty(req, r->said == SAID_REPORT ? 202 : 503);
}

/* Is there room for another one? 0 or ERR_BUSY, ERR_UNAVAILABLE. */
static int room(struct kelou_executor *e, bool slot, struct err *ret) {
  if (atomic_load(&e->draining))
    return err_set(ret, ERR_UNAVAILABLE, "this executor is draining");
  if (outbox_full(e->outbox))
    return err_set(ret, ERR_BUSY, "too many reports wait to be acknowledged");
  if (slot && slots_full(e->slots))
    return err_set(ret, ERR_BUSY, "all slots are taken");
  return 0;
}

/* With the lock. A new attempt, in place of an earlier one that the centre has given up. */
static struct kelou_run *admit(struct kelou_executor *e, const struct kelou_handler *h, struct message **m,
                               struct kelou_run *earlier) {
  struct kelou_run *r = run_new(e, h, *m);
  *m = NULL;
  if (earlier && earlier->phase != PHASE_ENDED)
    run_stop(earlier, STOP_SUPERSEDED);
  attempts_expire(&e->attempts, sdk_mono());
  attempts_add(&e->attempts, r);
  e->active++;
  e->counts.accepted++;
  return r;
}

static int deliver(struct kelou_executor *e, struct http_request *req, struct message **m, struct err *ret) {
  const struct kelou_handler *h = handler_of(e, (*m)->handler);
  if (!h)
    return err_field(ret, ERR_NOT_FOUND, "/handler", "there is no handler \"%.64s\" here", (*m)->handler);
  struct kelou_run *known, *fresh = NULL;
  bool ended = false;
  int r = 0;
  mutex_lock(&e->lock);
  enum admission a = attempts_look(&e->attempts, (*m)->run_id, (*m)->attempt, (*m)->fence, &known);
  switch (a) {
  case ADMIT_STALE:
    e->counts.refused_stale++;
    r = err_set(ret, ERR_CONFLICT, "a later attempt or a higher fence of this run has been here");
    break;
  case ADMIT_REPEATED:
    e->counts.repeated++;
    known = run_ref(known);
    ended = known->phase == PHASE_ENDED;
    break;
  case ADMIT_NEW:
    r = room(e, needs_slot(h, *m), ret);
    if (r == 0)
      fresh = admit(e, h, m, known);
    else
      e->counts.refused_busy++;
    break;
  }
  mutex_unlock(&e->lock);
  if (a == ADMIT_REPEATED) {
    on_repeated(e, req, known, ended);
    run_unref(&known);
  } else if (fresh) {
    on_new(e, req, fresh);
    run_unref(&fresh);
  }
  return r;
}

static int on_run(struct kelou_executor *e, struct http_request *req, struct err *ret) {
  struct message *m = NULL;
  int r = message_read(req->body, &m, ret);
  if (r >= 0)
    r = deliver(e, req, &m, ret);
  message_free(&m);
  return r;
}

/* ---------------------------------------------------------------- cancel, ping */

static int on_cancel(struct kelou_executor *e, struct http_request *req, struct err *ret) {
  struct cancel_message m;
  int r = cancel_message_read(req->body, &m, ret);
  if (r < 0)
    return r;
  bool left = false, ended = false;
  mutex_lock(&e->lock);
  struct kelou_run *known = attempts_find(&e->attempts, m.run_id);
  if (!known) {
    r = err_set(ret, ERR_NOT_FOUND, "this executor does not have that run");
  } else if (m.attempt != known->attempt || m.fence < known->fence) {
    r = err_set(ret, ERR_CONFLICT, "this executor has another attempt or a higher fence of this run");
  } else {
    known = run_ref(known);
    ended = known->phase == PHASE_ENDED;
    run_stop(known, STOP_CANCELLED);
    left = run_leave_queue(known, SAID_REPORT);
  }
  mutex_unlock(&e->lock);
  if (r < 0)
    return r;
  if (left)
    run_left(known);
  else if (ended && known->said == SAID_REPORT)
    outbox_push(e->outbox, known, true);
  run_unref(&known);
  empty(req, 202);
  return 0;
}

static int on_ping(struct kelou_executor *e, struct http_request *req, struct err *ret) {
  (void)ret;
  answer(req, 200, "application/json",
         atomic_load(&e->draining) ? SLICE("{\"status\":\"draining\"}") : SLICE("{\"status\":\"ok\"}"));
  return 0;
}

/* ---------------------------------------------------------------- all */

struct route {
  const char *path, *method;
  int (*handle)(struct kelou_executor *e, struct http_request *req,
                struct err *ret); /* negative: not answered */
  bool signed_by_centre;
};
static const struct route routes[] = {{"/kelou/v1/run", "POST", on_run, true},
                                      {"/kelou/v1/cancel", "POST", on_cancel, true},
                                      {"/kelou/v1/ping", "GET", on_ping, false}};

static int check_signature(const struct kelou_executor *e, const struct http_request *req, struct err *ret) {
  return signature_check(http_request_header(req, "X-Kelou-Signature"), e->secrets, e->o.secret_count,
                         sdk_wall(), e->o.replay_window, req->body, ret);
}

static int dispatch(struct kelou_executor *e, struct http_request *req, struct err *ret) {
  struct slice path = req->path;
  size_t base = strlen(e->base_path);
  if (base && path.n > base && memcmp(path.p, e->base_path, base) == 0) /* unless a proxy has taken it away */
    path = slice_n(path.p + base, path.n - base);
  for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
    if (!slice_eqz(path, routes[i].path))
      continue;
    if (!slice_eqz(req->method, routes[i].method))
      return err_set(ret, ERR_METHOD, "expected %s", routes[i].method);
    int r = routes[i].signed_by_centre ? check_signature(e, req, ret) : 0;
    return r < 0 ? r : routes[i].handle(e, req, ret);
  }
  return err_set(ret, ERR_NOT_FOUND, "expected /kelou/v1/run, /kelou/v1/cancel or /kelou/v1/ping");
}

void receive(struct http_request *req, void *executor) {
  struct kelou_executor *e = executor;
  struct err why = {0};
  if (dispatch(e, req, &why) >= 0)
    return;
  if (why.code != ERR_BUSY && why.code != ERR_UNAVAILABLE)
    sdk_log(e, KELOU_WARN, "refused a request of %s: %s", req->peer, why.text);
  problem(req, &why);
}
