/* Calls: made on any thread, started, timed and ended on the loop. Connections: http_pool.c. */
#include "net/http_client.h"
#include "base/mem.h"
#include "net/client_internal.h"
#include "net/http_text.h"
#include <assert.h>

#define TICK_MIN   (5 * USEC_PER_MS)
#define TICK_MAX   (500 * USEC_PER_MS)
#define TICK_SHARE 8
#define BUCKETS    64

void http_client_options_default(struct http_client_options *o) {
  *o = (struct http_client_options){
      .max_connections_per_target = 16,
      .max_waiting_per_target = 1024,
      .max_response_bytes = 1024 * 1024 + 64 * 1024,
      .connect_timeout = 3 * USEC_PER_SEC,
      .idle_timeout = 60 * USEC_PER_SEC,
  };
}

/* --- deadlines: a binary heap, one timer for its top ------------------------------------------------------ */

static void heap_put(struct http_client *c, size_t at, struct call *k) {
  c->heap[at - 1] = k;
  k->heap_at = at;
}

static void heap_up(struct http_client *c, size_t at, struct call *k) {
  while (at > 1 && c->heap[at / 2 - 1]->deadline > k->deadline) {
    heap_put(c, at, c->heap[at / 2 - 1]);
    at /= 2;
  }
  heap_put(c, at, k);
}

static void heap_down(struct http_client *c, size_t at, struct call *k) {
  for (;;) {
    size_t child = 2 * at;
    if (child < c->heap_n && c->heap[child]->deadline < c->heap[child - 1]->deadline)
      child++;
    if (child > c->heap_n || c->heap[child - 1]->deadline >= k->deadline)
      break;
    heap_put(c, at, c->heap[child - 1]);
    at = child;
  }
  heap_put(c, at, k);
}

static void alarm_set(struct http_client *c) {
  if (!c->heap_n)
    return; /* it may ring for nothing once */
  usec_t first = c->heap[0]->deadline;
  if (c->alarm_at && c->alarm_at <= first)
    return;
  c->alarm_at = first;
  usec_t now = loop_now(c->loop);
  loop_timer_set(c->alarm, first > now ? first - now : 0, 0);
}

static void heap_add(struct http_client *c, struct call *k) {
  mem_reserve(c->heap, c->heap_n, c->heap_cap);
  heap_up(c, ++c->heap_n, k);
  alarm_set(c);
}

static void heap_remove(struct http_client *c, struct call *k) {
  size_t at = k->heap_at;
  if (!at)
    return;
  k->heap_at = 0;
  struct call *last = c->heap[--c->heap_n];
  if (last == k)
    return;
  heap_up(c, at, last);
  heap_down(c, last->heap_at, last);
}

static void on_alarm(void *arg) {
  struct http_client *c = arg;
  c->alarm_at = 0;
  usec_t now = loop_now(c->loop);
  while (c->heap_n && c->heap[0]->deadline <= now)
    pool_expire(c->heap[0]); /* takes it out */
  alarm_set(c);
}

/* --- the end of a call ----------------------------------------------------------------------------------- */

static void call_free(struct call *k) {
  target_unref(&k->target);
  buf_done(&k->text);
  mem_free(k);
}

static void finish(struct call *k, struct http_result *r) {
  struct http_client *c = k->client;
  heap_remove(c, k);
  link_out(&k->link);
  r->elapsed = loop_now(c->loop) - k->started;
  if (r->elapsed < 0) /* the loop's clock is that of the turn's start */
    r->elapsed = 0;
  k->done(r, k->arg);
  call_free(k);
  atomic_fetch_sub_explicit(&c->outstanding, 1, memory_order_relaxed);
  client_end_when_empty(c);
}

void client_finish(struct call *k, enum http_call_outcome outcome, const char *why) {
  struct http_result r = {.outcome = outcome, .why = why};
  finish(k, &r);
}

void client_answer(struct call *k, const struct http_parse *p, const struct http_message *m) {
  struct http_result r = {.outcome = HTTP_CALL_ANSWERED,
                          .status = p->parser.status_code,
                          .headers = m->headers,
                          .header_count = m->header_n,
                          .body = http_message_slice(m, m->body)};
  finish(k, &r);
}

/* --- making a call --------------------------------------------------------------------------------------- */

static bool ours(struct slice name) {
  static const char *const made_here[] = {"host", "content-length", "connection", "transfer-encoding"};
  for (size_t i = 0; i < sizeof made_here / sizeof *made_here; i++)
    if (slice_eqz_nocase(name, made_here[i]))
      return true;
  return false;
}

/* A space or control character in the path would end the request line early. */
static bool path_good(struct slice path) {
  if (!path.n || path.p[0] != '/')
    return false;
  for (size_t i = 0; i < path.n; i++)
    if ((unsigned char)path.p[i] <= ' ' || (unsigned char)path.p[i] >= 127)
      return false;
  return true;
}

static void request_text(struct buf *b, const struct http_call *call) {
  const struct target *t = call->target;
  (void)buf_room(b, 512 + call->body.n); /* one allocation in the common case */
  buf_add(b, call->method, strlen(call->method));
  buf_lit(b, " ");
  buf_add(b, t->base_path, strlen(t->base_path));
  buf_add(b, call->path.p, call->path.n);
  buf_lit(b, " HTTP/1.1\r\n");
  buf_add_header(b, SLICE("Host"), slice_of(t->authority));
  for (size_t i = 0; i < call->header_count; i++)
    if (!ours(call->headers[i].name))
      buf_add_header(b, call->headers[i].name, call->headers[i].value);
  if (call->body.n || call->method[0] == 'P') { /* POST, PUT, PATCH: say so even if there is none */
    buf_lit(b, "Content-Length: ");
    buf_add_number(b, call->body.n);
    buf_lit(b, "\r\n");
  }
  buf_lit(b, "\r\n");
  buf_add(b, call->body.p, call->body.n);
}

static void call_start(void *arg) {
  struct call *k = arg;
  struct http_client *c = k->client;
  if (c->stopping)
    client_finish(k, HTTP_CALL_NOT_SENT, "the client is stopping");
  else if (k->bad)
    client_finish(k, HTTP_CALL_NOT_SENT, k->bad);
  else if (k->deadline <= loop_now(c->loop))
    client_finish(k, HTTP_CALL_NOT_SENT, "the time is up");
  else {
    heap_add(c, k);
    pool_submit(c, k);
  }
}

void http_client_call(struct http_client *c, const struct http_call *call) {
  struct call *k = mem_zalloc(sizeof *k);
  k->client = c;
  k->target = target_ref((struct target *)(uintptr_t)call->target); /* only the count changes */
  k->started = clock_system.mono(&clock_system);
  if (__builtin_add_overflow(k->started, call->timeout, &k->deadline))
    k->deadline = USEC_NEVER;
  k->head = strcmp(call->method, "HEAD") == 0;
  k->done = call->done;
  k->arg = call->arg;
  if (path_good(call->path))
    request_text(&k->text, call);
  else
    k->bad = "the path is not valid";
  atomic_fetch_add_explicit(&c->outstanding, 1, memory_order_relaxed);
  loop_post(c->loop, call_start, k);
}

/* --- life ------------------------------------------------------------------------------------------------ */

static void on_tick(void *arg) { pool_tick(arg); }

static void start(void *arg) {
  struct http_client *c = arg;
  usec_t t =
      (c->o.connect_timeout < c->o.idle_timeout ? c->o.connect_timeout : c->o.idle_timeout) / TICK_SHARE;
  t = t < TICK_MIN ? TICK_MIN : t > TICK_MAX ? TICK_MAX : t;
  c->tick = loop_timer_new(c->loop, on_tick, c);
  c->alarm = loop_timer_new(c->loop, on_alarm, c);
  loop_timer_set(c->tick, t, t);
}

int http_client_new(struct loop *l, const struct http_client_options *o, struct http_client **ret,
                    struct err *e) {
  struct tls_context *tls = NULL;
  assert(o->max_connections_per_target > 0 && o->max_waiting_per_target >= 0);
  int r =
      o->ca_file ? tls_context_client(o->ca_file, &tls, e) : 0; /* the system's are read when first needed */
  if (r < 0)
    return r;
  struct http_client *c = mem_zalloc(sizeof *c);
  c->loop = l;
  c->o = *o;
  c->o.ca_file = NULL; /* read; the text is the caller's */
  c->tls = tls;
  c->bucket_n = BUCKETS;
  c->buckets = mem_array(c->bucket_n, sizeof *c->buckets);
  due_init(&c->connecting, o->connect_timeout);
  due_init(&c->idle, o->idle_timeout);
  mutex_init(&c->lock);
  cond_init(&c->ended_cond);
  loop_call(l, start, c);
  *ret = c;
  return 0;
}

void client_end_when_empty(struct http_client *c) {
  if (!c->stopping || c->ended || c->handles || atomic_load_explicit(&c->outstanding, memory_order_relaxed))
    return;
  loop_timer_free(&c->tick);
  loop_timer_free(&c->alarm);
  mutex_lock(&c->lock);
  c->ended = true;
  cond_signal(&c->ended_cond);
  mutex_unlock(&c->lock);
}

static void stop(void *arg) {
  struct http_client *c = arg;
  c->stopping = true;
  pool_close_all(c, "the client is stopping");
  client_end_when_empty(c);
}

void http_client_free(struct http_client **cp) {
  struct http_client *c = *cp;
  if (!c)
    return;
  assert(!loop_is_current(c->loop));
  loop_post(c->loop, stop, c);
  mutex_lock(&c->lock);
  while (!c->ended)
    (void)cond_wait(&c->ended_cond, &c->lock,
                    USEC_NEVER); /* ends: everything is closed, nothing new starts */
  mutex_unlock(&c->lock);
  mutex_done(&c->lock);
  cond_done(&c->ended_cond);
  tls_context_free(&c->tls);
  mem_free(c->buckets);
  mem_free(c->heap);
  mem_free(c);
  *cp = NULL;
}
