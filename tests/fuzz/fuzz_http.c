/* HTTP/1.1 in any split. First byte: direction (bit 0), answer to HEAD (bit 1); second byte: how the rest is cut into pieces. However
 * it is cut, the same messages must come out as in one piece, and be refused after the same. */
#include "fuzz.h"
#include "net/http_parse.h"
#include "net/http_text.h"
#include <stdio.h>

enum { HEADER_MAX = 2048, BODY_MAX = 4096, MESSAGES_MAX = 16 };

struct reader {
  struct http_parse parse;
  struct http_message message;
  struct str seen; /* what came out, as one text */
  size_t messages;
  bool over;
};

static void say(struct str *s, const char *what, struct slice value) {
  str_addf(s, "%s %zu:", what, value.n);
  str_add(s, value);
  str_addc(s, '\n');
}

/* What handlers do with a request's target. */
static void walk_url(struct slice url) {
  struct slice query, name, value, path = slice_cut(url, '?', &query);
  auto_str text;
  str_init(&text, 3 * BODY_MAX);
  (void)http_decode(path, false, &text);
  assert(text.n <= path.n);
  while (http_query_next(&query, &name, &value)) {
    str_clear(&text);
    if (http_decode(name, true, &text) == 0 && http_decode(value, true, &text) == 0)
      assert(text.n <= name.n + value.n && (!text.n || !memchr(text.p, 0, text.n)));
  }
}

/* Header values that came in may go out again: the answer must stay one answer. */
static void echo(const struct http_message *m) {
  struct http_reply reply = {.status = 200,
                             .content_type = "text/plain",
                             .headers = m->headers,
                             .header_count = m->header_n,
                             .body = SLICE("body")};
  struct buf out = {0};
  http_reply_text(&out, &reply, (struct http_reply_how){0});
  const char *end = memmem(out.p, out.n, "\r\n\r\n", 4);
  assert(end && end + 4 + 4 == out.p + out.n && memcmp(end + 4, "body", 4) == 0);
  buf_done(&out);
}

static void take_message(struct reader *r) {
  struct http_message *m = &r->message;
  llhttp_t *l = &r->parse.parser;
  str_addf(&r->seen, "message %d %d.%d keep %d expects %d\n",
           l->type == HTTP_REQUEST ? (int)l->method : (int)l->status_code, l->http_major, l->http_minor,
           r->parse.keep_alive, r->parse.expects);
  struct slice url = http_message_slice(m, m->url), body = http_message_slice(m, m->body);
  assert(body.n <= BODY_MAX && m->header_n <= HTTP_HEADERS_MAX && url.n <= HEADER_MAX);
  say(&r->seen, "url", url);
  for (size_t i = 0; i < m->header_n; i++) {
    say(&r->seen, "name", m->headers[i].name);
    say(&r->seen, "value", m->headers[i].value);
  }
  say(&r->seen, "body", body);
  walk_url(url);
  echo(m);
  http_message_clear(m);
  http_parse_next(&r->parse);
  r->over = ++r->messages == MESSAGES_MAX;
}

static void take_refusal(struct reader *r) {
  assert(r->parse.why && r->parse.status >= 400 && r->parse.status <= 599);
  str_addz(&r->seen, "refused\n"); /* what is wrong first may depend on how far one could look */
  r->over = true;
}

static void feed(struct reader *r, const char *p, size_t n) {
  while (n && !r->over) {
    size_t used = 0;
    enum http_parsed got = http_parse_feed(&r->parse, p, n, &used);
    if (got == HTTP_BAD) {
      take_refusal(r);
    } else {
      assert(used <= n && (got == HTTP_DONE || used == n));
      p += used;
      n -= used;
      if (got == HTTP_DONE)
        take_message(r);
    }
  }
}

static void finish(struct reader *r) {
  if (!r->over && r->parse.parser.type == HTTP_RESPONSE && http_parse_end(&r->parse) == HTTP_DONE)
    take_message(r);
}

static void reader_init(struct reader *r, uint8_t how) {
  *r = (struct reader){0};
  str_init(&r->seen, 4 * 1024 * 1024);
  http_parse_init(&r->parse, how & 1 ? HTTP_RESPONSE : HTTP_REQUEST, HEADER_MAX, BODY_MAX);
  r->parse.message = &r->message;
  r->parse.head = how & 2;
}

static void reader_done(struct reader *r) {
  http_message_done(&r->message);
  str_done(&r->seen);
}

/* Pieces of 1 to 16 bytes; each has memory of its own, as a socket's buffer is used anew. */
static void feed_cut(struct reader *r, const uint8_t *p, size_t n, uint8_t seed) {
  char piece[16];
  for (uint32_t x = seed * 2654435761u + 1; n; x = x * 1664525u + 1013904223u) {
    size_t take = seed == 0 ? 1 : 1 + (x >> 24) % sizeof piece;
    take = take < n ? take : n;
    memcpy(piece, p, take);
    feed(r, piece, take);
    memset(piece, '#', sizeof piece);
    p += take;
    n -= take;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2)
    return 0;
  struct reader whole, cut;
  reader_init(&whole, data[0]);
  reader_init(&cut, data[0]);
  feed(&whole, (const char *)data + 2, size - 2);
  feed_cut(&cut, data + 2, size - 2, data[1]);
  finish(&whole);
  finish(&cut);
  if (!slice_eq(str_slice(&whole.seen), str_slice(&cut.seen)))
    (void)fprintf(stderr, "whole:\n%scut:\n%s", whole.seen.p, cut.seen.p);
  assert(!str_failed(&whole.seen) && slice_eq(str_slice(&whole.seen), str_slice(&cut.seen)));
  reader_done(&whole);
  reader_done(&cut);
  return 0;
}
