/* Who may come in: connections overall and of one address, requests of one token, and how often. */
#include "base/mem.h"
#include "net/http_internal.h"
#include <stdio.h>

void http_count(struct http_server *s, enum http_cause cause) { metric_add(s->causes[cause], 1); }

/* --- refusals -------------------------------------------------------------------------------------------------- */

void http_refusal_init(struct http_refusal *r, const struct http_server *s, int status, const char *why,
                       int retry_after) {
  const char *type = "text/plain; charset=utf-8";
  *r = (struct http_refusal){.reply = {.status = status}};
  str_init(&r->body, 4096);
  if (s->o.refusal)
    s->o.refusal(status, why, &r->body, &type);
  else
    str_addf(&r->body, "%s\n", why);
  r->reply.content_type = type;
  if (!str_failed(&r->body))
    r->reply.body = str_slice(&r->body);
  if (status == 429 || status == 503) {
    (void)snprintf(r->seconds, sizeof r->seconds, "%d", retry_after);
    r->retry = (struct http_header){SLICE("Retry-After"), slice_of(r->seconds)};
    r->reply.headers = &r->retry;
    r->reply.header_count = 1;
  }
}

void http_refusal_done(struct http_refusal *r) { str_done(&r->body); }

/* --- connections ----------------------------------------------------------------------------------------------- */

/* When all places are taken: the one that has been idle longest gives its own, if it has been so for a while. */
static bool make_room(struct http_server *s) {
  struct due_list *idle = &s->due[CONN_IDLE];
  struct link *first = list_first(&idle->head);
  if (!first)
    return false;
  struct http_conn *c = link_entry(first, struct http_conn, due.link);
  if (c->due.at - idle->timeout + HTTP_ROOM_AGE > loop_now(s->loop))
    return false;
  http_count(s, HTTP_CAUSE_room);
  http_conn_close(c);
  return true;
}

/* One place too few: say why, unless so many are being told already. */
static void turn_away(struct http_conn *c, enum http_cause cause, int status, const char *why) {
  struct http_server *s = c->server;
  c->refused = true;
  if (++s->refused <= HTTP_REFUSED_MAX) {
    http_conn_refuse(c, cause, status, why);
    return;
  }
  http_count(s, cause);
  http_conn_close(c);
}

void http_accept(struct http_server *s) {
  struct http_conn *c = http_conn_make(s);
  struct http_limiter *l = &s->shell->address;
  usec_t now = loop_now(s->loop);
  uint8_t network[STREAM_NETWORK_BYTES];
  s->connections++;
  s->open++;
  if (stream_accept(&c->stream, &s->listener) < 0) {
    http_count(s, HTTP_CAUSE_accept);
    http_conn_close(c);
    return;
  }
  size_t n = stream_peer(&c->stream, c->peer, sizeof c->peer, network);
  c->address = http_limiter_hold(l, slice_n((const char *)network, n), now);
  if (http_limiter_take(l, c->address, now)) {
    http_count(s, HTTP_CAUSE_address_rate);
    http_conn_close(c);
  } else if (http_limiter_full(l, c->address)) {
    turn_away(c, HTTP_CAUSE_address, 429, "too many connections from this address");
  } else if (s->open - s->refused > s->o.max_connections && !make_room(s)) {
    turn_away(c, HTTP_CAUSE_connections, 503, "too many connections");
  } else {
    stream_read_start(&c->stream);
  }
}

/* --- requests -------------------------------------------------------------------------------------------------- */

static bool deny(struct http_conn *c, enum http_cause cause, const char *why, int seconds, bool more) {
  struct http_refusal r;
  http_count(c->server, cause);
  http_refusal_init(&r, c->server, 429, why, seconds);
  r.reply.close = more; /* it does not even wait for answers: it may come again as a new connection */
  http_request_reply(&c->exchange->request, &r.reply);
  http_refusal_done(&r);
  return false;
}

/* "Bearer klt_…": what counts is the last word, however the header is written. */
static struct slice credential(const struct http_request *r) {
  struct slice s = slice_trim(http_request_header(r, "Authorization"));
  for (size_t i = s.n; i > 0; i--)
    if (s.p[i - 1] == ' ' || s.p[i - 1] == '\t')
      return slice_n(s.p + i, s.n - i);
  return s;
}

bool http_admit(struct http_conn *c, bool more) {
  struct http_exchange *x = c->exchange;
  struct http_shell *shell = c->server->shell;
  usec_t now = loop_now(c->server->loop);
  int wait = http_limiter_take(&shell->address, c->address, now);
  if (wait)
    return deny(c, HTTP_CAUSE_address_rate, "too many requests from this address", wait, more);
  struct slice who = credential(&x->request);
  if (!who.n || (!shell->token.step_ns && !shell->token.max_held))
    return true;
  x->token = http_limiter_hold(&shell->token, who, now);
  if (http_limiter_full(&shell->token, x->token))
    return deny(c, HTTP_CAUSE_token, "too many requests are in progress with this token", 1, more);
  wait = http_limiter_take(&shell->token, x->token, now);
  return wait ? deny(c, HTTP_CAUSE_token_rate, "too many requests with this token", wait, more) : true;
}
