/* The client's connections: one pool for each peer, a bounded number of connections, calls in order of arrival. */
#include "base/mem.h"
#include "net/client_internal.h"

#define STOPPED "the connection was closed before the whole answer came"

static const struct stream_ops ops;
static void connect_more(struct pool *p);

/* --- pools ----------------------------------------------------------------------------------------------- */

static void rehash(struct http_client *c) {
  size_t n = c->bucket_n * 2;
  struct pool **v = mem_array(n, sizeof *v);
  for (size_t i = 0; i < c->bucket_n; i++)
    for (struct pool *p = c->buckets[i], *next; p; p = next) {
      struct pool **to = &v[p->target->key_hash & (n - 1)];
      next = p->next;
      p->next = *to;
      *to = p;
    }
  mem_free(c->buckets);
  c->buckets = v;
  c->bucket_n = n;
}

static struct pool *pool_get(struct http_client *c, struct target *t) {
  for (struct pool *p = c->buckets[t->key_hash & (c->bucket_n - 1)]; p; p = p->next)
    if (target_same_peer(p->target, t))
      return p;
  if (++c->pool_n > c->bucket_n)
    rehash(c);
  struct pool *p = mem_zalloc(sizeof *p);
  struct pool **to = &c->buckets[t->key_hash & (c->bucket_n - 1)];
  p->client = c;
  p->target = target_ref(t);
  list_init(&p->conns);
  list_init(&p->idle);
  list_init(&p->waiting);
  p->next = *to;
  *to = p;
  return p;
}

static void pool_free(struct pool *p) {
  struct http_client *c = p->client;
  struct pool **at = &c->buckets[p->target->key_hash & (c->bucket_n - 1)];
  while (*at != p)
    at = &(*at)->next;
  *at = p->next;
  c->pool_n--;
  target_unref(&p->target);
  mem_free(p);
}

static void wait_in_pool(struct pool *p, struct call *k, bool first) {
  k->conn = NULL;
  list_push(first ? p->waiting.next : &p->waiting, &k->link); /* before what is first, or at the end */
  p->waiting_n++;
}

static struct call *next_waiting(struct pool *p) {
  struct link *l = list_first(&p->waiting);
  if (!l)
    return NULL;
  link_out(l);
  p->waiting_n--;
  return link_entry(l, struct call, link);
}

static void fail_waiting(struct pool *p, const char *why) {
  struct call *k;
  while ((k = next_waiting(p)))
    client_finish(k, HTTP_CALL_NOT_SENT, why);
}

/* --- connections ----------------------------------------------------------------------------------------- */

static void conn_close(struct client_conn *k) {
  struct pool *p = k->pool;
  if (k->stream.closing)
    return;
  due_clear(&k->due);
  link_out(&k->idle);
  link_out(&k->link);
  p->open--;
  if (k->connecting)
    p->connecting--;
  k->connecting = false;
  stream_close(&k->stream);
}

static void on_closed(struct stream *s) {
  struct client_conn *k = (struct client_conn *)s;
  struct pool *p = k->pool;
  struct http_client *c = p->client;
  http_message_done(&k->message);
  mem_free(k);
  c->handles--;
  if (--p->handles == 0 && !p->waiting_n)
    pool_free(p);
  client_end_when_empty(c);
}

/* The call on this connection is over without an answer. The connection is of no use any more. */
static void conn_lose(struct client_conn *conn, const char *why) {
  struct call *k = conn->call;
  struct pool *p = conn->pool;
  bool wrote = conn->stream.wrote;
  conn->call = NULL;
  conn_close(conn);
  if (k)
    client_finish(k, wrote ? HTTP_CALL_LOST : HTTP_CALL_NOT_SENT, why);
  connect_more(p);
}

static void conn_send(struct client_conn *conn, struct call *k) {
  conn->call = k;
  k->conn = conn;
  conn->stream.wrote = false;
  conn->parse.head = k->head;
  if (stream_write(&conn->stream, k->text.p, k->text.n) >= 0)
    return;
  if (conn->stream.wrote || k->retried) {
    conn_lose(conn, conn->stream.why);
    return;
  }
  /* Stale, and surely nothing has left: once more, in front of the others. */
  conn->call = NULL;
  k->retried = true;
  wait_in_pool(conn->pool, k, true);
  struct pool *p = conn->pool;
  conn_close(conn);
  connect_more(p);
}

/* Free for the next call, or for later. */
static void conn_release(struct client_conn *conn) {
  struct pool *p = conn->pool;
  struct call *k = next_waiting(p);
  if (k) {
    conn_send(conn, k);
    return;
  }
  conn->idle_since = loop_now(p->client->loop);
  list_push(&p->idle, &conn->idle);
  due_set(&p->client->idle, &conn->due, conn->idle_since);
}

static void connect_failed(struct client_conn *conn, const char *why) {
  struct pool *p = conn->pool;
  conn_close(conn);
  /* As long as another connection works, the waiting calls wait for that one. */
  if (p->open == p->connecting)
    fail_waiting(p, why);
}

/* Reading the system's hundred-odd certificates takes milliseconds: once, and only if there is an https target. */
static struct tls *tls_for(struct http_client *c, const struct target *t) {
  if (!c->tls && tls_context_client(NULL, &c->tls, NULL) < 0)
    return NULL;
  return tls_new_client(c->tls, t->host);
}

/* False: it failed at once (no descriptor or no port left, no route). */
static bool conn_open(struct pool *p) {
  struct http_client *c = p->client;
  struct client_conn *conn = mem_zalloc(sizeof *conn);
  conn->pool = p;
  conn->connecting = true;
  list_push(&p->conns, &conn->link);
  p->open++;
  p->connecting++;
  p->handles++;
  c->handles++;
  (void)stream_init(&conn->stream, c->loop, &ops); /* only fills in memory for TCP */
  http_parse_init(&conn->parse, HTTP_RESPONSE, HTTP_RESPONSE_HEADER_BYTES, c->o.max_response_bytes);
  conn->parse.message = &conn->message;
  due_set(&c->connecting, &conn->due, loop_now(c->loop));
  struct tls *tls = NULL;
  if (p->target->https && !(tls = tls_for(c, p->target))) {
    connect_failed(conn, "TLS cannot be set up");
    return false;
  }
  int r = stream_connect(&conn->stream, (const struct sockaddr *)&p->target->address, tls);
  if (r < 0)
    connect_failed(conn, uv_strerror(r));
  return r >= 0;
}

static void connect_more(struct pool *p) {
  if (p->client->stopping)
    return;
  while (p->connecting < p->waiting_n && p->open < p->client->o.max_connections_per_target)
    if (!conn_open(p)) /* those that wait have failed, or wait for a connection that works */
      return;
}

static void on_ready(struct stream *s) {
  struct client_conn *conn = (struct client_conn *)s;
  conn->connecting = false;
  conn->pool->connecting--;
  due_clear(&conn->due);
  conn_release(conn);
}

static void answered(struct client_conn *conn, bool reusable) {
  struct call *k = conn->call;
  struct pool *p = conn->pool;
  conn->call = NULL;
  if (!reusable || !conn->parse.keep_alive || stream_pending(&conn->stream) || p->client->stopping) {
    client_answer(k, &conn->parse, &conn->message);
    conn_close(conn);
    connect_more(p);
    return;
  }
  client_answer(k, &conn->parse, &conn->message);
  http_message_clear(&conn->message);
  http_parse_next(&conn->parse);
  conn_release(conn);
}

static void on_data(struct stream *s, const char *bytes, size_t n) {
  struct client_conn *conn = (struct client_conn *)s;
  size_t used;
  if (!conn->call) { /* nobody has asked */
    conn_lose(conn, "data without a request");
    return;
  }
  switch (http_parse_feed(&conn->parse, bytes, n, &used)) {
  case HTTP_MORE: break;
  case HTTP_DONE: answered(conn, used == n); break;
  case HTTP_BAD:
    conn_lose(conn, conn->parse.status == 413 ? "the answer is too large" : conn->parse.why);
    break;
  }
}

static void on_ended(struct stream *s, int error) {
  struct client_conn *conn = (struct client_conn *)s;
  if (conn->connecting) {
    connect_failed(conn, s->why);
    return;
  }
  if (conn->call && error == 0 && http_parse_end(&conn->parse) == HTTP_DONE)
    answered(conn, false);
  else
    conn_lose(conn, error ? s->why : STOPPED);
}

static void on_drained(struct stream *s) { (void)s; }

static const struct stream_ops ops = {
    .ready = on_ready, .data = on_data, .ended = on_ended, .drained = on_drained, .closed = on_closed};

/* --- calls ----------------------------------------------------------------------------------------------- */

static struct client_conn *take_idle(struct pool *p) {
  while (!list_empty(&p->idle)) {
    struct client_conn *conn = link_entry(p->idle.prev, struct client_conn, idle);
    /* The end of a connection may lie unread behind the event that brought this call: ask, a request written into
     * it would count as lost. In the turn in which it was used nothing can be unread. */
    bool used_now = conn->idle_since == loop_now(p->client->loop);
    if (!used_now && stream_peer_closed(&conn->stream)) {
      conn_close(conn);
      continue;
    }
    link_out(&conn->idle);
    due_clear(&conn->due);
    return conn;
  }
  return NULL;
}

void pool_submit(struct http_client *c, struct call *k) {
  struct pool *p = pool_get(c, k->target);
  struct client_conn *conn = take_idle(p);
  if (conn) {
    conn_send(conn, k);
    return;
  }
  int behind = p->waiting_n - p->connecting; /* those that no new connection is being made for */
  if (p->open >= c->o.max_connections_per_target && behind >= c->o.max_waiting_per_target) {
    client_finish(k, HTTP_CALL_REFUSED, "too many calls wait for this target");
    return;
  }
  wait_in_pool(p, k, false);
  connect_more(p);
}

void pool_expire(struct call *k) {
  if (k->conn) {
    conn_lose(k->conn, "the time is up");
    return;
  }
  struct pool *p = pool_get(k->client, k->target);
  p->waiting_n--;
  client_finish(k, HTTP_CALL_NOT_SENT,
                p->open > p->connecting ? "the time was up before a connection was free"
                                        : "the time was up before it was connected");
}

void pool_tick(struct http_client *c) {
  usec_t now = loop_now(c->loop);
  struct due *d;
  while ((d = due_next(&c->connecting, now)))
    connect_failed(link_entry(d, struct client_conn, due), "connecting took too long");
  while ((d = due_next(&c->idle, now)))
    conn_close(link_entry(d, struct client_conn, due));
}

void pool_close_all(struct http_client *c, const char *why) {
  for (size_t i = 0; i < c->bucket_n; i++)
    for (struct pool *p = c->buckets[i]; p; p = p->next) {
      struct link *l;
      fail_waiting(p, why);
      while ((l = list_first(&p->conns)))
        conn_lose(link_entry(l, struct client_conn, link), why);
    }
}
