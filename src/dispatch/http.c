#include "dispatch/http.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/parse.h"
#include "net/crypto.h"
#include "net/http_client.h"

enum {
  MESSAGE_MAX = 3 * 1024 * 1024,
  ANSWER_MAX = 1024 * 1024 + 65536,
  ERROR_TEXT_MAX_BYTES = 65536,
  RESULT_MAX = 65536,
  REFUSAL_BODY_MAX = 200,
  SIGNATURES_TEXT = 2 * SIGNATURE_TEXT_MAX
};
static const usec_t RETRY_AFTER_MOST = 30 * USEC_PER_SEC, ROOM_PAUSE = 10 * USEC_PER_MS;

struct http_channel {
  struct http_channel_options o;
  struct dispatcher *dispatcher;
};

void http_channel_options_default(struct http_channel_options *o) {
  *o = (struct http_channel_options){
      .clock = &clock_system, .cancel_tries = 3, .cancel_timeout = 5 * USEC_PER_SEC};
}

struct http_channel *http_channel_new(const struct http_channel_options *o, struct dispatcher *d) {
  struct http_channel *c = mem_zalloc(sizeof *c);
  c->o = *o;
  c->dispatcher = d;
  return c;
}

void http_channel_free(struct http_channel **c) {
  mem_free(*c);
  *c = NULL;
}

/* ---------------------------------------------------------------- the message */

static void add_text(struct str *s, const char *name, struct slice v) {
  str_addf(s, ",\"%s\":\"", name);
  str_add_json(s, v);
  str_addc(s, '"');
}

static void add_time(struct str *s, const char *name, usec_t t) {
  char text[TIME_TEXT_MAX];
  str_addf(s, ",\"%s\":\"%s\"", name, time_format(t, text));
}

static void write_message(const struct delivery *v, struct str *s) {
  const struct run_job *j = v->job;
  char id[RUN_ID_LEN + 1];
  run_id_format(&j->key, id);
  str_addf(s,
           "{\"run_id\":\"%s\",\"idempotency_key\":\"%s\",\"task_id\":\"%lld\",\"attempt\":%d,\"max_"
           "attempts\":%d,\"fence\":%lld",
           id, id, (long long)j->key.task_id, j->attempt, j->spec->retry.max_attempts, (long long)j->fence);
  add_text(s, "task_name", v->task_name);
  add_text(s, "namespace", v->ns);
  add_text(s, "handler", slice_of(j->spec->handler));
  add_time(s, "scheduled_at", j->key.scheduled_at);
  add_time(s, "fired_at", j->fired_at);
  if (j->deadline != USEC_NEVER)
    add_time(s, "deadline", j->deadline);
  if (j->spec->exactly_one_start)
    str_addz(s, ",\"exactly_one_start\":true");
  str_addf(s, ",\"priority\":%d,\"payload\":", j->spec->priority);
  str_add(s, v->payload.n ? v->payload : SLICE("null"));
  str_addc(s, '}');
}

/* One header with a v1= for each valid secret: executors on both sides of a rotation accept it. */
static int sign(struct http_channel *c, struct instance *i, struct slice body,
                char ret_text[SIGNATURES_TEXT]) {
  struct registry_secrets secrets;
  if (registry_secrets(c->o.registry, i, &secrets) < 0)
    return ERR_NOT_FOUND;
  usec_t now = c->o.clock->wall(c->o.clock);
  signature_make(slice_of(secrets.text[0]), now, body, ret_text);
  if (secrets.text[1][0]) {
    char second[SIGNATURE_TEXT_MAX];
    signature_make(slice_of(secrets.text[1]), now, body, second);
    struct slice rest, head = slice_cut(slice_of(second), ',', &rest);
    (void)head; /* the same t= */
    size_t n = strlen(ret_text);
    ret_text[n] = ',';
    (void)text_copy(ret_text + n + 1, SIGNATURES_TEXT - n - 1, rest); /* two signatures fit by construction */
  }
  return 0;
}

/* ---------------------------------------------------------------- the answer */

static usec_t retry_after(const struct http_result *r) {
  for (size_t i = 0; i < r->header_count; i++) {
    int64_t seconds;
    if (slice_eqz_nocase(r->headers[i].name, "retry-after") &&
        parse_i64(slice_trim(r->headers[i].value), 0, 86400, &seconds, NULL) >= 0)
      return seconds * USEC_PER_SEC > RETRY_AFTER_MOST ? RETRY_AFTER_MOST : seconds * USEC_PER_SEC;
  }
  return 0;
}

static void take_error(const json_t *doc, struct arena *mem, struct live_event *ev) {
  const json_t *error = json_object_get(doc, "error");
  if (!json_is_object(error))
    return;
  struct slice type = {0}, message = {0}, detail = {0};
  (void)json_get_slice(error, "type", 256, &type, NULL); /* a wrong type of an optional text is left out */
  (void)json_get_slice(error, "message", ERROR_TEXT_MAX_BYTES, &message, NULL);
  (void)json_get_slice(error, "detail", ERROR_TEXT_MAX_BYTES, &detail, NULL);
  ev->error_type = type.p ? arena_slice(mem, type) : type;
  ev->error_message = message.p ? arena_slice(mem, message) : message;
  ev->error_detail = detail.p ? arena_slice(mem, detail) : detail;
}

/* 200: done at once. {"state": SUCCESS|FAIL|CANCELLED, "result": …, "error": {…}}; anything else is the result of a success. */
static void take_done(const struct http_result *r, struct arena *mem, struct live_event *ev) {
  ev->kind = EV_DONE_OK;
  auto_json *doc = NULL;
  if (r->body.n == 0 || json_read(r->body, ANSWER_MAX, &doc, NULL) < 0) {
    if (slice_utf8_valid(r->body) && !memchr(r->body.p ? r->body.p : "", 0, r->body.n))
      ev->result = arena_slice(mem, slice_utf8_head(r->body, RESULT_MAX));
    return;
  }
  int state = RUN_SUCCESS;
  if (json_is_object(doc) && json_get_enum(doc, "state", run_state_names, &state, NULL) > 0) {
    ev->kind = state == RUN_FAIL        ? EV_DONE_FAIL
               : state == RUN_CANCELLED ? EV_DONE_CANCELLED
               : state == RUN_RUNNING   ? EV_ACCEPT
                                        : EV_DONE_OK;
    take_error(doc, mem, ev);
    const json_t *result = json_object_get(doc, "result");
    auto_free char *text = result ? json_text(result) : NULL;
    ev->result = text ? arena_slice(mem, slice_of(text)) : (struct slice){0};
  } else {
    ev->result = arena_slice(mem, r->body);
  }
  ev->result = slice_utf8_head(ev->result, RESULT_MAX);
}

static const char *refusal_text(const struct http_result *r, struct arena *mem) {
  struct slice body = slice_utf8_head(r->body, REFUSAL_BODY_MAX);
  const char *what =
      r->status == 401 ? ", it did not accept the signature (the secret of the group, its clock)" : "";
  return arena_printf(mem, "the executor answered %d%s%s%.*s", r->status, what, body.n ? ": " : "",
                      (int)body.n, body.n ? body.p : "");
}

static void answer_of(const struct http_result *r, struct arena *mem, struct dispatch_answer *a) {
  *a = (struct dispatch_answer){.event = {.progress = -1}};
  const char *why = NULL;
  switch (r->outcome) {
  case HTTP_CALL_REFUSED: /* too many of ours wait for its connections: it is well, and soon has room */
    a->outcome = DISPATCH_BUSY;
    a->retry_after = ROOM_PAUSE;
    why = r->why;
    break;
  case HTTP_CALL_NOT_SENT:
    a->outcome = DISPATCH_UNREACHABLE;
    why = r->why;
    break;
  case HTTP_CALL_LOST:
    a->outcome = DISPATCH_LOST;
    why = r->why;
    break;
  case HTTP_CALL_ANSWERED:
    if (r->status == 202) {
      a->outcome = DISPATCH_ACCEPTED;
    } else if (r->status >= 200 && r->status < 300) {
      take_done(r, mem, &a->event);
      a->outcome = a->event.kind == EV_ACCEPT ? DISPATCH_ACCEPTED : DISPATCH_DONE;
    } else {
      bool busy = r->status == 429 || r->status == 503;
      a->outcome = busy ? DISPATCH_BUSY : DISPATCH_REFUSED;
      a->retry_after = busy ? retry_after(r) : 0;
      a->out_of_order = !busy && r->status >= 500;
      why = refusal_text(r, mem);
    }
    break;
  }
  if (why && slice_utf8_valid(slice_of(why))) { /* a body cut in the middle of a character says nothing */
    a->event.error_type = slice_of(a->outcome == DISPATCH_REFUSED ? "REJECTED"
                                   : a->outcome == DISPATCH_LOST  ? "LOST"
                                                                  : "NO_EXECUTOR");
    a->event.error_message = slice_of(why);
  }
}

/* ---------------------------------------------------------------- run */

struct run_call {
  struct http_channel *channel;
  struct delivery *delivery;
};

static void run_done(const struct http_result *r, void *arg) {
  struct run_call *c = arg;
  auto_arena mem = {0};
  struct dispatch_answer a;
  answer_of(r, &mem, &a);
  dispatch_answer(c->channel->dispatcher, c->delivery, &a);
  mem_free(c);
}

static void post(struct http_channel *c, struct instance *i, const char *path, struct slice body,
                 struct http_call *call) {
  char signature[SIGNATURES_TEXT];
  if (sign(c, i, body, signature) < 0) {
    call->done(&(struct http_result){.outcome = HTTP_CALL_NOT_SENT, .why = "the executor group is gone"},
               call->arg);
    return;
  }
  struct http_header headers[] = {{SLICE("Content-Type"), SLICE("application/json")},
                                  {SLICE("X-Kelou-Signature"), slice_of(signature)}};
  call->target = i->target;
  call->method = "POST";
  call->path = slice_of(path);
  call->headers = headers;
  call->header_count = 2;
  call->body = body;
  http_client_call(c->o.client, call);
}

static void channel_send(void *arg, struct delivery *v) {
  struct http_channel *c = arg;
  auto_str body;
  str_init(&body, MESSAGE_MAX);
  write_message(v, &body);
  struct run_call *rc = mem_alloc(sizeof *rc);
  *rc = (struct run_call){c, v};
  struct http_call call = {.timeout = v->timeout, .done = run_done, .arg = rc};
  if (str_failed(&body)) {
    run_done(&(struct http_result){.outcome = HTTP_CALL_ANSWERED,
                                   .status = 413,
                                   .body = SLICE("the message is too large to be sent")},
             rc);
    return;
  }
  post(c, v->instance, "/kelou/v1/run", str_slice(&body), &call);
}

/* ---------------------------------------------------------------- cancel */

struct cancel_call {
  struct http_channel *channel;
  struct instance *instance;
  char *body;
  int left;
};

static void cancel_send(struct cancel_call *c);

static void cancel_done(const struct http_result *r, void *arg) {
  struct cancel_call *c = arg;
  bool again = r->outcome != HTTP_CALL_ANSWERED && --c->left > 0;
  if (again) {
    cancel_send(c);
    return;
  }
  if (r->outcome != HTTP_CALL_ANSWERED)
    log_warn("executor not told to stop a run, its time-out will end it", LF_S("executor", c->instance->id),
             LF_S("why", r->why));
  instance_unref(&c->instance);
  mem_free(c->body);
  mem_free(c);
}

static void cancel_send(struct cancel_call *c) {
  struct http_call call = {.timeout = c->channel->o.cancel_timeout, .done = cancel_done, .arg = c};
  post(c->channel, c->instance, "/kelou/v1/cancel", slice_of(c->body), &call);
}

static void channel_cancel(void *arg, struct instance *i, const struct live_cancel *lc, int64_t fence) {
  char id[RUN_ID_LEN + 1];
  run_id_format(&lc->key, id);
  struct str body;
  str_init(&body, 512);
  str_addf(&body, "{\"run_id\":\"%s\",\"attempt\":%d,\"fence\":%lld}", id, lc->attempt, (long long)fence);
  struct cancel_call *c = mem_alloc(sizeof *c);
  *c = (struct cancel_call){arg, instance_ref(i), str_take(&body),
                            ((struct http_channel *)arg)->o.cancel_tries};
  cancel_send(c);
}

struct dispatch_channel http_channel_ops(struct http_channel *c) {
  return (struct dispatch_channel){"http", channel_send, channel_cancel, c};
}
