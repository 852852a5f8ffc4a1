/* The server's life: listen, accept, watch deadlines, drain. Connections: http_conn.c. */
#include "net/http_server.h"
#include "base/mem.h"
#include "net/http_internal.h"
#include <assert.h>

#define BACKLOG    1024
#define TICK_MIN   (5 * USEC_PER_MS)
#define TICK_MAX   (500 * USEC_PER_MS)
#define TICK_SHARE 8 /* deadlines are met within an eighth of the shortest */

void http_server_options_default(struct http_server_options *o) {
  *o = (struct http_server_options){
      .address = "127.0.0.1",
      .max_header_bytes = 16 * 1024,
      .max_body_bytes = 2 * 1024 * 1024,
      .max_connections = 10000,
      .header_timeout = 10 * USEC_PER_SEC,
      .body_timeout = 30 * USEC_PER_SEC,
      .write_timeout = 30 * USEC_PER_SEC,
      .idle_timeout = 75 * USEC_PER_SEC,
      .max_headers = HTTP_HEADERS_MAX,
  };
}

void http_shell_unref(struct http_shell *s) {
  if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
    return;
  http_limiter_done(&s->address);
  http_limiter_done(&s->token);
  mutex_done(&s->lock);
  mem_free(s);
}

static bool draining(const struct http_server *s) {
  return atomic_load_explicit(&s->shell->draining, memory_order_relaxed);
}

static void on_connection(uv_stream_t *listener, int status) {
  struct http_server *s = listener->data;
  if (status == 0)
    http_accept(s);
  else /* no descriptor left, most likely: libuv has closed what waited */
    http_count(s, HTTP_CAUSE_accept);
}

static void expire(struct http_server *s, struct due_list *d) {
  usec_t now = loop_now(s->loop);
  struct due *x;
  while ((x = due_next(d, now)))
    http_conn_expired(link_entry(x, struct http_conn, due)); /* takes it out of this list */
}

static void on_tick(void *arg) {
  struct http_server *s = arg;
  struct due *x;
  usec_t now = loop_now(s->loop);
  for (int i = 0; i < CONN_STATE_MAX_; i++)
    expire(s, &s->due[i]);
  while ((x = due_next(&s->whole, now)))
    http_conn_overdue(link_entry(x, struct http_conn, whole));
  http_limiter_tidy(&s->shell->address, now);
  http_limiter_tidy(&s->shell->token, now);
  metric_set(s->open_gauge, s->open);
  metric_set(s->bytes_gauge, (double)atomic_load_explicit(&s->shell->buffered, memory_order_relaxed));
}

/* --- turns: connections with requests at hand that have had theirs ------------------------------------------ */

void http_server_again(struct http_conn *c) {
  struct http_server *s = c->server;
  list_push(&s->again, &c->again);
  loop_timer_set(s->again_timer, HTTP_TURN_PAUSE, 0);
}

static void on_again(void *arg) {
  struct http_server *s = arg;
  struct link *l, turn;
  list_init(&turn);
  while ((l = list_first(&s->again))) {
    link_out(l);
    list_push(&turn, l);
  }
  while ((l = list_first(&turn))) {
    link_out(l);
    http_conn_again(link_entry(l, struct http_conn, again));
  }
}

static void server_free(struct http_server *s) {
  while (s->spare) {
    struct http_exchange *x = s->spare;
    s->spare = x->next_spare;
    http_exchange_free(x);
  }
  if (s->shell)
    http_shell_unref(s->shell);
  mutex_done(&s->lock);
  cond_done(&s->done);
  mem_free(s->address);
  mem_free(s);
}

/* --- drain ---------------------------------------------------------------------------------------------- */

static void end_when_empty(struct http_server *s) {
  if (!draining(s) || s->connections || !s->listener_closed)
    return;
  loop_timer_free(&s->tick);
  loop_timer_free(&s->grace);
  loop_timer_free(&s->again_timer);
  mutex_lock(&s->shell->lock);
  s->shell->closed = true;
  mutex_unlock(&s->shell->lock);
  mutex_lock(&s->lock);
  s->ended = true;
  cond_signal(&s->done);
  mutex_unlock(&s->lock);
}

/* It no longer counts against any limit. */
void http_server_conn_closing(struct http_conn *c) {
  struct http_server *s = c->server;
  s->open--;
  s->refused -= c->refused;
  if (c->address)
    http_limiter_release(&s->shell->address, take(c->address));
}

void http_server_conn_gone(struct http_server *s) {
  s->connections--;
  end_when_empty(s);
}

static void on_listener_closed(uv_handle_t *h) {
  struct http_server *s = h->data;
  s->listener_closed = true;
  end_when_empty(s);
}

static void close_all(struct http_server *s, struct link *head, bool counted) {
  struct link *l;
  while ((l = list_first(head))) {
    if (counted)
      http_count(s, HTTP_CAUSE_drain);
    http_conn_close(link_entry(l, struct http_conn, due.link));
  }
}

static void on_grace_over(void *arg) {
  struct http_server *s = arg;
  for (int i = 0; i < CONN_STATE_MAX_; i++)
    close_all(s, &s->due[i].head, i != CONN_LINGER);
  close_all(s, &s->handling, true);
}

struct drain {
  struct http_server *server;
  usec_t grace;
};

/* Those between two turns have requests in flight: they end with the answers. */
static void close_idle(struct http_server *s) {
  struct link *l, *next, *head = &s->due[CONN_IDLE].head;
  for (l = head->next; l != head; l = next) {
    struct http_conn *c = link_entry(l, struct http_conn, due.link);
    next = l->next;
    if (!link_in(&c->again))
      http_conn_close(c);
  }
}

static void drain_begin(void *arg) {
  struct drain *d = arg;
  struct http_server *s = d->server;
  atomic_store_explicit(&s->shell->draining, true, memory_order_relaxed);
  uv_close((uv_handle_t *)&s->listener, on_listener_closed);
  close_idle(s);
  close_all(s, &s->due[CONN_LINGER].head, false);
  loop_timer_set(s->grace, d->grace, 0);
}

void http_server_drain(struct http_server **sp, usec_t grace) {
  struct http_server *s = *sp;
  if (!s)
    return;
  assert(!loop_is_current(s->loop));
  struct drain d = {s, grace};
  loop_call(s->loop, drain_begin, &d);
  mutex_lock(&s->lock);
  while (!s->ended)
    (void)cond_wait(&s->done, &s->lock, USEC_NEVER); /* ends: all connections are closed after `grace` */
  mutex_unlock(&s->lock);
  server_free(s);
  *sp = NULL;
}

/* --- start ---------------------------------------------------------------------------------------------- */

struct start {
  struct http_server *server;
  struct sockaddr_storage address;
  int result;
};

static int bind_and_listen(struct http_server *s, const struct sockaddr *address) {
  int r = uv_tcp_bind(&s->listener, address, 0); /* sets SO_REUSEADDR */
  if (r == 0)
    r = uv_listen((uv_stream_t *)&s->listener, BACKLOG, on_connection);
  struct sockaddr_storage bound;
  int size = sizeof bound;
  if (r == 0)
    r = uv_tcp_getsockname(&s->listener, (struct sockaddr *)&bound, &size);
  if (r == 0)
    s->port = ntohs(bound.ss_family == AF_INET ? ((struct sockaddr_in *)&bound)->sin_port
                                               : ((struct sockaddr_in6 *)&bound)->sin6_port);
  return r;
}

static usec_t tick_length(const struct http_server_options *o) {
  usec_t t = o->header_timeout;
  t = o->body_timeout < t ? o->body_timeout : t;
  t = o->write_timeout < t ? o->write_timeout : t;
  t = o->request_timeout && o->request_timeout < t ? o->request_timeout : t;
  t = (o->idle_timeout < t ? o->idle_timeout : t) / TICK_SHARE;
  return t < TICK_MIN ? TICK_MIN : t > TICK_MAX ? TICK_MAX : t;
}

static void free_on_close(uv_handle_t *h) { server_free(h->data); }

static void start(void *arg) {
  struct start *a = arg;
  struct http_server *s = a->server;
  a->result = uv_tcp_init(loop_uv(s->loop), &s->listener);
  s->listener.data = s;
  if (a->result == 0)
    a->result = bind_and_listen(s, (struct sockaddr *)&a->address);
  if (a->result < 0) {
    uv_close((uv_handle_t *)&s->listener, free_on_close);
    return;
  }
  s->tick = loop_timer_new(s->loop, on_tick, s);
  s->grace = loop_timer_new(s->loop, on_grace_over, s);
  s->again_timer = loop_timer_new(s->loop, on_again, s);
  usec_t tick = tick_length(&s->o);
  loop_timer_set(s->tick, tick, tick);
}

static void counters(struct http_server *s) {
  static const char *const names[HTTP_CAUSE_MAX_] = {
#define X(name) [HTTP_CAUSE_##name] = #name,
      HTTP_CAUSES(X)
#undef X
  };
  struct metric_family *f =
      metric_family("kelou_http_refused_total", "Connections and requests refused or cut, by the cause",
                    METRIC_COUNTER, "cause", NULL);
  for (int i = 0; i < HTTP_CAUSE_MAX_; i++)
    s->causes[i] = metric_series(f, names[i], NULL);
  s->open_gauge = metric_series(
      metric_family("kelou_http_connections", "Open client connections", METRIC_GAUGE, "", NULL), NULL);
  s->bytes_gauge = metric_series(
      metric_family("kelou_http_buffered_bytes", "Requests and answers in memory", METRIC_GAUGE, "", NULL),
      NULL);
}

static struct http_server *server_new(struct loop *l, const struct http_server_options *o) {
  struct http_server *s = mem_zalloc(sizeof *s);
  s->loop = l;
  s->o = *o;
  s->o.address = s->address = mem_strdup(o->address);
  s->shell = mem_zalloc(sizeof *s->shell);
  s->shell->refs = 1;
  s->shell->loop = l;
  http_limiter_init(&s->shell->address, o->rate_per_address, o->max_connections_per_address);
  http_limiter_init(&s->shell->token, o->rate_per_token, o->max_requests_per_token);
  mutex_init(&s->shell->lock);
  mutex_init(&s->lock);
  cond_init(&s->done);
  const usec_t timeouts[CONN_STATE_MAX_] = {[CONN_IDLE] = o->idle_timeout,
                                            [CONN_HEADER] = o->header_timeout,
                                            [CONN_BODY] = o->body_timeout,
                                            [CONN_WRITING] = o->write_timeout,
                                            [CONN_LINGER] = HTTP_LINGER};
  for (int i = 0; i < CONN_STATE_MAX_; i++)
    due_init(&s->due[i], timeouts[i]);
  due_init(&s->whole, o->request_timeout);
  list_init(&s->handling);
  list_init(&s->again);
  counters(s);
  return s;
}

int http_server_start(struct loop *l, const struct http_server_options *o, struct http_server **ret,
                      struct err *e) {
  struct start a = {0};
  assert(o->handle && o->max_connections > 0 && o->max_headers > 0);
  if (o->port < 0 || o->port > 65535)
    return err_set(e, ERR_INVALID, "port %d: expected 0 to 65535", o->port);
  if (uv_ip4_addr(o->address, o->port, (struct sockaddr_in *)&a.address) < 0 &&
      uv_ip6_addr(o->address, o->port, (struct sockaddr_in6 *)&a.address) < 0)
    return err_set(e, ERR_INVALID, "\"%s\" is not a numeric address to listen on", o->address);
  a.server = server_new(l, o);
  loop_call(l, start, &a);
  if (a.result < 0) /* the server frees itself once libuv has let go of the listener */
    return err_set(e, a.result, "cannot listen on %s port %d: %s", o->address, o->port,
                   uv_strerror(a.result));
  *ret = a.server;
  return 0;
}

int http_server_port(const struct http_server *s) { return s->port; }
