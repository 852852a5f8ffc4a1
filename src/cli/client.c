#include "cli/client.h"
#include "base/mem.h"
#include "base/thread.h"
#include "cli/input.h"
#include "cli/words.h"
#include "net/http_client.h"
#include "net/loop.h"
#include <stdio.h>
#include <stdlib.h>

struct client {
  struct loop *loop;
  struct http_client *http;
  struct target *target;
  struct str bearer; /* "Bearer …"; empty: no token */
};

/* What the loop thread hands over. */
struct waiting {
  struct mutex lock;
  struct cond ready;
  bool done; /* under lock, as all that follows */
  enum http_call_outcome outcome;
  int status;
  struct str body;
  char why[160];
};

static int say_error(const struct err *e) {
  words_complain(SAY_plain, e->text, NULL);
  return err_exit(e->code);
}

/* ------------------------------------------------------------------ who and where */

static const char *from_environment(const char *given, const char *name) {
  const char *value = given ? given : getenv(name);
  return value && *value ? value : NULL;
}

static int use_token(struct client *c, struct slice text, const char *where) {
  while (text.n && (text.p[text.n - 1] == '\n' || text.p[text.n - 1] == '\r'))
    text.n--;
  text = slice_trim(text);
  bool good = text.n > 0 && text.n <= TOKEN_BYTES_MAX;
  for (size_t i = 0; i < text.n; i++)
    good = good && text.p[i] > ' ' && text.p[i] < 0x7f;
  if (!good) {
    words_complain(SAY_bad_token, where, NULL);
    return EXIT_USAGE;
  }
  str_addz(&c->bearer, "Bearer ");
  str_add(&c->bearer, text);
  return 0;
}

static int read_token(struct client *c, const struct invocation *given) {
  const char *file = given->values[OPT_token_file], *text = getenv("KELOU_TOKEN");
  if (!file && text && *text)
    return use_token(c, slice_of(text), "KELOU_TOKEN");
  file = from_environment(file, "KELOU_TOKEN_FILE");
  if (!file)
    return 0;
  struct err e = {0};
  auto_str bytes;
  str_init(&bytes, TOKEN_BYTES_MAX + 1);
  if (input_bytes(file, TOKEN_BYTES_MAX, &bytes, &e) < 0)
    return say_error(&e);
  return use_token(c, str_slice(&bytes), file);
}

static int start(struct client *c, const struct invocation *given) {
  struct err e = {0};
  const char *server = from_environment(given->values[OPT_server], "KELOU_SERVER");
  struct http_client_options o;
  http_client_options_default(&o);
  o.max_response_bytes = ANSWER_MAX;
  o.ca_file = from_environment(given->values[OPT_ca_file], "KELOU_CA_FILE");
  int r = target_parse(slice_of(server ? server : SERVER_DEFAULT), NULL, &c->target, &e);
  if (r == 0)
    r = loop_new("kelou", &c->loop, &e);
  if (r == 0)
    r = loop_start(c->loop, &e);
  if (r == 0)
    r = http_client_new(c->loop, &o, &c->http, &e);
  return r < 0 ? say_error(&e) : 0;
}

int client_open(const struct invocation *given, struct client **ret) {
  struct client *c = mem_zalloc(sizeof *c);
  str_init(&c->bearer, TOKEN_BYTES_MAX + 16);
  int code = read_token(c, given);
  if (code == 0)
    code = start(c, given);
  if (code)
    client_close(&c);
  else
    *ret = c;
  return code;
}

void client_close(struct client **pc) {
  struct client *c = *pc;
  *pc = NULL;
  if (!c)
    return;
  if (c->http)
    http_client_free(&c->http);
  if (c->loop)
    loop_stop(&c->loop);
  if (c->target)
    target_unref(&c->target);
  str_done(&c->bearer);
  mem_free(c);
}

const char *client_server(const struct client *c) { return target_url(c->target); }

/* ------------------------------------------------------------------ a call */

static void on_done(const struct http_result *r, void *arg) {
  struct waiting *w = arg;
  mutex_lock(&w->lock);
  w->outcome = r->outcome;
  if (r->outcome == HTTP_CALL_ANSWERED) {
    w->status = r->status;
    str_add(&w->body, r->body);
  } else {
    (void)text_copy(w->why, sizeof w->why, slice_of(r->why)); /* a cut reason is still one */
  }
  w->done = true;
  cond_signal(&w->ready);
  mutex_unlock(&w->lock);
}

static void send_request(struct client *c, const struct request *r, usec_t timeout, struct waiting *w) {
  struct http_header headers[8];
  size_t n = 0;
  for (; n < r->header_count; n++)
    headers[n] = r->headers[n];
  if (c->bearer.n)
    headers[n++] = (struct http_header){SLICE("Authorization"), str_slice(&c->bearer)};
  headers[n++] = (struct http_header){SLICE("User-Agent"), SLICE("kelou/" KELOU_VERSION)};
  if (r->body)
    headers[n++] = (struct http_header){SLICE("Content-Type"), SLICE("application/json")};
  auto_free char *body = r->body ? json_text(r->body) : NULL;
  http_client_call(c->http, &(struct http_call){.target = c->target,
                                                .method = r->method,
                                                .path = str_slice(&r->target),
                                                .headers = headers,
                                                .header_count = n,
                                                .body = slice_of(body),
                                                .timeout = timeout,
                                                .done = on_done,
                                                .arg = w});
  mutex_lock(&w->lock);
  while (!w->done)
    (void)cond_wait(&w->ready, &w->lock, USEC_NEVER); /* `done` comes exactly once */
  mutex_unlock(&w->lock);
}

/* What the outcome means when there was no answer. */
static int say_no_answer(const struct client *c, const struct request *r, const struct waiting *w,
                         usec_t waited, usec_t timeout) {
  char text[TIME_TEXT_MAX];
  bool late = waited >= timeout, lost = w->outcome == HTTP_CALL_LOST;
  if (late)
    words_complain(SAY_no_answer_in_time, client_server(c), duration_format(timeout, text));
  else
    words_complain(lost ? SAY_no_answer : SAY_unreachable, client_server(c), w->why);
  if (lost && r->idempotency_key[0])
    words_complain(SAY_repeat_with, r->idempotency_key, NULL);
  return err_exit(late ? ERR_TIMEOUT : ERR_UNREACHABLE);
}

static int say_foreign(const struct client *c, int status) {
  char text[16];
  (void)snprintf(text, sizeof text, "%d", status);
  words_complain(SAY_not_kelou, client_server(c), text);
  return 1;
}

int client_call(struct client *c, const struct request *r, usec_t timeout, struct answer *ret) {
  struct waiting w = {0};
  mutex_init(&w.lock);
  cond_init(&w.ready);
  str_init(&w.body, ANSWER_MAX + 1);
  usec_t begin = clock_system.mono(&clock_system);
  send_request(c, r, timeout, &w);
  usec_t waited = clock_system.mono(&clock_system) - begin;
  int code = 0;
  json_t *body = NULL;
  if (w.outcome != HTTP_CALL_ANSWERED)
    code = say_no_answer(c, r, &w, waited, timeout);
  else if (w.body.n && json_read(str_slice(&w.body), ANSWER_MAX, &body, NULL) < 0)
    code = say_foreign(c, w.status);
  else if (w.status < 200 || (w.status >= 300 && w.status < 400) ||
           (w.status >= 400 && !json_is_object(body)))
    code = say_foreign(c, w.status);
  if (code == 0)
    *ret = (struct answer){.status = w.status, .body = json_incref(body)};
  json_decref(body);
  str_done(&w.body);
  cond_done(&w.ready);
  mutex_done(&w.lock);
  return code;
}

void answer_done(struct answer *a) {
  json_decref(a->body);
  a->body = NULL;
}

/* ------------------------------------------------------------------ problems */

static const char *member(const json_t *o, const char *key) {
  const char *text = json_string_value(json_object_get(o, key));
  return text ? text : "";
}

/* The option or argument that put the value there, NULL: none did. */
static const char *option_of(const struct verb *v, enum opt_place place, const char *key) {
  for (int i = 0; v && i < OPT_MAX_; i++)
    if ((v->options >> i & 1) && command_opts[i].place == place && strcmp(command_opts[i].key, key) == 0)
      return command_opts[i].name;
  return NULL;
}

static void add_place(struct str *out, const struct verb *v, const json_t *place) {
  const char *pointer = member(place, "pointer"), *parameter = member(place, "parameter"),
             *header = member(place, "header");
  const char *key = *pointer ? pointer + 1 : *parameter ? parameter : header;
  const char *option = option_of(v, *pointer ? PLACE_BODY : *parameter ? PLACE_QUERY : PLACE_HEADER, key);
  if (option)
    str_addf(out, "--%s", option);
  else
    str_addz(out, *pointer ? pointer : key);
  int64_t column = json_integer_value(json_object_get(place, "column"));
  if (column)
    str_addf(out, ":%lld", (long long)column);
  if (out->n)
    str_addz(out, ": ");
}

static int exit_of(const char *code, int status) {
  static const struct {
    const char *code;
    int exit_code;
  } rows[] = {
#define ERR(name, number, text, http, exit_code, title) {text, exit_code},
#include "base/errors.def"
#undef ERR
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    if (strcmp(code, rows[i].code) == 0)
      return rows[i].exit_code;
  return status == 503 ? err_exit(ERR_UNAVAILABLE) : 1;
}

static const json_t *problem_place(const struct answer *a) {
  return json_array_get(json_object_get(a->body, "errors"), 0);
}

int problem_exit(const struct answer *a) { return exit_of(member(a->body, "code"), a->status); }

const char *problem_pointer(const struct answer *a) { return member(problem_place(a), "pointer"); }

int64_t problem_column(const struct answer *a) {
  return json_integer_value(json_object_get(problem_place(a), "column"));
}

const char *problem_detail(const struct answer *a) {
  const char *detail = member(problem_place(a), "detail");
  if (!*detail)
    detail = member(a->body, "detail");
  return *detail ? detail : member(a->body, "title");
}

int problem_say(const struct client *c, const struct verb *v, const struct answer *a) {
  if (!*member(a->body, "code"))
    return say_foreign(c, a->status);
  if (a->status == 401 && !c->bearer.n) {
    words_complain(SAY_no_token, NULL, NULL);
    return problem_exit(a);
  }
  auto_str text;
  str_init(&text, 4096);
  add_place(&text, v, problem_place(a));
  str_addz(&text, problem_detail(a));
  words_complain(SAY_plain, text.p, NULL);
  return problem_exit(a);
}
