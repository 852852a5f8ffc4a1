/* The runner of most verbs: one call, or pages of a list. */
#include "base/parse.h"
#include "cli/client.h"
#include "cli/output.h"
#include "cli/words.h"
#include <inttypes.h>
#include <stdio.h>

#define LIST_DEFAULT 100
#define PAGE_MAX     1000 /* items that the API gives at once */

usec_t call_timeout(const struct invocation *g) { return g->timeout ? g->timeout : CALL_TIMEOUT_DEFAULT; }

int call_once(struct client *c, const struct invocation *g, const struct request *r, json_t **ret) {
  auto_answer a = {0};
  int code = client_call(c, r, call_timeout(g), &a);
  if (code)
    return code;
  if (a.status >= 400)
    return problem_say(c, g->verb, &a);
  *ret = json_incref(a.body);
  return 0;
}

/* ------------------------------------------------------------------ lists */

struct pages {
  const struct invocation *given;
  struct client *client;
  size_t base;    /* length of the request's target without what a page adds */
  int64_t wanted; /* items still to be got */
  json_t *items;
  json_t *cursor; /* where the list goes on; NULL: it ends */
};

static int read_limit(const struct invocation *g, int64_t *ret) {
  struct err e = {0};
  const char *text = g->values[OPT_limit];
  *ret = g->values[OPT_all] ? INT64_MAX : LIST_DEFAULT;
  if (!text || parse_i64(slice_of(text), 1, INT64_MAX, ret, &e) == 0)
    return 0;
  (void)fprintf(stderr, "kelou: --limit: %s\n", e.text);
  return EXIT_USAGE;
}

static void page_target(const struct pages *p, struct str *target) {
  bool has_query = target->n && memchr(target->p, '?', target->n);
  str_addf(target, "%climit=%" PRId64, has_query ? '&' : '?', p->wanted < PAGE_MAX ? p->wanted : PAGE_MAX);
  if (p->cursor) {
    str_addz(target, "&cursor=");
    request_encode(target, slice_of(json_string_value(p->cursor)));
  }
}

/* One page more. 0, or the exit code. */
static int next_page(struct pages *p, struct request *r) {
  auto_str first;
  str_init(&first, r->target.max);
  str_add(&first, slice_n(r->target.p, p->base));
  str_clear(&r->target);
  str_add(&r->target, str_slice(&first));
  page_target(p, &r->target);
  auto_json *page = NULL;
  int code = call_once(p->client, p->given, r, &page);
  if (code)
    return code;
  json_t *items = json_object_get(page, "items"), *cursor = json_object_get(page, "next_cursor");
  (void)json_array_extend(p->items, items); /* fails only without memory */
  p->wanted -= (int64_t)json_array_size(items);
  json_decref(p->cursor);
  p->cursor = json_is_string(cursor) && json_array_size(items) ? json_incref(cursor) : NULL;
  return 0;
}

int call_pages(struct client *c, const struct invocation *g, struct request *r, json_t **ret) {
  struct pages p = {.given = g, .client = c, .base = r->target.n};
  int code = read_limit(g, &p.wanted);
  if (code)
    return code;
  p.items = json_array();
  do
    code = next_page(&p, r);
  while (code == 0 && p.cursor && p.wanted > 0);
  if (code == 0) {
    json_t *made = json_object();
    (void)json_object_set(made, "items", p.items); /* fails only without memory, as the next */
    (void)json_object_set_new(made, "next_cursor", p.cursor ? json_incref(p.cursor) : json_null());
    *ret = made;
  }
  bool people = g->output == OUT_TABLE || g->output == OUT_WIDE;
  if (code == 0 && p.cursor && people && !g->values[OPT_limit]) {
    char count[32];
    (void)snprintf(count, sizeof count, "%zu", json_array_size(p.items));
    words_complain(SAY_more, count, NULL);
  }
  json_decref(p.items);
  json_decref(p.cursor);
  return code;
}

int cli_call(const struct invocation *given) {
  struct client *c = NULL;
  auto_request r = {0};
  auto_json *answer = NULL;
  int code = request_build(given, &r);
  if (code == 0)
    code = client_open(given, &c);
  if (code == 0)
    code = given->verb->flags & PAGES ? call_pages(c, given, &r, &answer) : call_once(c, given, &r, &answer);
  if (code == 0)
    code = output_show(given, answer);
  client_close(&c);
  return code;
}
