/* What a command asks for, as a request. */
#include "base/mem.h"
#include "base/parse.h"
#include "cli/client.h"
#include "cli/input.h"
#include "cli/words.h"
#include "net/crypto.h"
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>

#define TARGET_MAX (16 * 1024)
#define AGE_MAX    (3660 * USEC_PER_DAY)
#define KEY_HEADER "Idempotency-Key"
#define WORD_MAX   256

struct builder {
  const struct invocation *given;
  struct request *r;
  char query_mark; /* '?' before the first parameter, then '&' */
};

static int refuse(const char *option, const struct err *e) {
  auto_str text;
  str_init(&text, 1024);
  if (option)
    str_addf(&text, "--%s: ", option);
  str_addz(&text, e->text);
  words_complain(SAY_plain, text.p, NULL);
  return err_exit(e->code);
}

void request_encode(struct str *out, struct slice text) {
  for (size_t i = 0; i < text.n; i++) {
    unsigned char c = (unsigned char)text.p[i];
    if (isalnum(c) || strchr("-._~", c))
      str_addc(out, (char)c);
    else
      str_addf(out, "%%%02X", c);
  }
}

static void add_query(struct builder *b, const char *name, const char *value) {
  str_addc(&b->r->target, b->query_mark);
  b->query_mark = '&';
  str_addz(&b->r->target, name);
  str_addc(&b->r->target, '=');
  request_encode(&b->r->target, slice_of(value));
}

static void add_header(struct builder *b, const char *name, const char *value) {
  b->r->headers[b->r->header_count++] = (struct http_header){slice_of(name), slice_of(value)};
}

/* A task or group as the API names it: a bare name gets the namespace that was given. */
static char *full_ref(const struct builder *b, const char *ref) {
  const char *ns = b->given->values[OPT_namespace];
  bool is_id = ref[0] && !ref[strspn(ref, "0123456789")];
  auto_str text;
  str_init(&text, TARGET_MAX);
  if (ns && !is_id && !strchr(ref, '/'))
    str_addf(&text, "%s/", ns);
  str_addz(&text, ref);
  char *made = str_take(&text);
  return made ? made : mem_strdup(""); /* too long to name anything */
}

/* "2h" → two hours before or after now; anything else as it is, for the server to judge. */
static char *instant(const char *text, bool ahead) {
  usec_t d, now = clock_system.wall(&clock_system);
  char buf[TIME_TEXT_MAX];
  if (duration_parse(slice_of(text), 0, AGE_MAX, &d, NULL) < 0 || (!ahead && d > now))
    return mem_strdup(text);
  return mem_strdup(time_format(ahead ? now + d : now - d, buf));
}

static char *upper(const char *text) {
  char *made = mem_strdup(text);
  for (char *c = made; *c; c++)
    *c = (char)toupper((unsigned char)*c);
  return made;
}

/* An option's value as text. Free with mem_free. */
static char *option_text(const struct builder *b, int index) {
  const char *value = b->given->values[index];
  switch (command_opts[index].kind) {
  case KIND_WORD: return upper(value);
  case KIND_FLAG: return mem_strdup("true");
  case KIND_REF: return full_ref(b, value);
  case KIND_AGO: return instant(value, false);
  case KIND_AHEAD: return instant(value, true);
  case KIND_TEXT:
  case KIND_LIST:
  case KIND_WORDS:
  case KIND_INT:
  case KIND_JSON:
  case KIND_PATH: break;
  }
  return mem_strdup(value);
}

static json_t *body_of(struct builder *b) {
  if (!b->r->body)
    b->r->body = json_object();
  return b->r->body;
}

/* "a,b" → ["a", "b"]; "" → []. NULL when it is not UTF-8. */
static json_t *list_of(const char *text, bool words) {
  auto_free char *copy = words ? upper(text) : mem_strdup(text);
  json_t *list = json_array();
  struct slice rest = slice_of(copy);
  while (rest.n) {
    struct slice one = slice_trim(slice_cut(rest, ',', &rest));
    if (json_array_append_new(list, json_stringn(one.p, one.n)) < 0) {
      json_decref(list);
      return NULL;
    }
  }
  return list;
}

static int add_to_body(struct builder *b, int index) {
  const struct opt *o = &command_opts[index];
  const char *value = b->given->values[index];
  struct err e = {0};
  json_t *j = NULL;
  int64_t i;
  if (o->kind == KIND_JSON && input_value(value, &j, &e) < 0)
    return refuse(o->name, &e);
  if (o->kind == KIND_FLAG)
    j = json_true();
  else if (o->kind == KIND_INT && parse_i64(slice_of(value), INT64_MIN, INT64_MAX, &i, NULL) == 0)
    j = json_integer(i);
  bool list = o->kind == KIND_LIST || o->kind == KIND_WORDS;
  if (list)
    j = list_of(value, o->kind == KIND_WORDS);
  if (!j && !list) {
    auto_free char *text = option_text(b, index);
    j = json_string(text);
  }
  if (!j) {
    (void)err_set(&e, ERR_INVALID, "expected UTF-8");
    return refuse(o->name, &e);
  }
  (void)json_object_set_new(body_of(b), o->key, j); /* fails only without memory */
  return 0;
}

static int add_version(struct builder *b, int64_t version) {
  (void)snprintf(b->r->if_match, sizeof b->r->if_match, "\"%" PRId64 "\"", version);
  add_header(b, "If-Match", b->r->if_match);
  return 0;
}

static int add_to_headers(struct builder *b, int index) {
  struct err e = {0};
  const char *value = b->given->values[index];
  if (index == OPT_if_version) {
    int64_t version;
    if (parse_i64(slice_of(value), 1, INT32_MAX, &version, &e) < 0)
      return refuse(command_opts[index].name, &e);
    return add_version(b, version);
  }
  bool visible = *value && strlen(value) < sizeof b->r->idempotency_key;
  for (const char *p = value; *p; p++)
    visible = visible && *p > ' ' && *p < 0x7f;
  if (!visible) {
    (void)err_set(&e, ERR_INVALID, "expected 1 to %zu visible ASCII characters",
                  sizeof b->r->idempotency_key - 1);
    return refuse(command_opts[index].name, &e);
  }
  (void)text_copy(b->r->idempotency_key, sizeof b->r->idempotency_key, slice_of(value)); /* measured above */
  return 0;
}

/* ------------------------------------------------------------------ the document */

/* Of a task: its schedule. Of a schedule: a document with it. Anything else as it is. */
static json_t *with_schedule(json_t *document) {
  json_t *schedule = json_object_get(document, "schedule");
  if (!schedule && !json_object_get(document, "kind"))
    return document;
  json_t *made = json_object();
  (void)json_object_set(made, "schedule", schedule ? schedule : document); /* fails only without memory */
  for (const char *const *key = (const char *const[]){"from", "n", NULL}; *key; key++)
    if (schedule && json_object_get(document, *key))
      (void)json_object_set(made, *key, json_object_get(document, *key)); /* the same */
  json_decref(document);
  return made;
}

static int read_document(struct builder *b) {
  struct err e = {0};
  const struct invocation *g = b->given;
  json_t *document = NULL;
  if (g->values[OPT_file] && g->values[OPT_patch]) {
    words_complain(SAY_not_both, "-f", "--patch");
    return EXIT_USAGE;
  }
  if (g->values[OPT_file] && input_document(g->values[OPT_file], &document, &e) < 0)
    return refuse(NULL, &e);
  if (g->values[OPT_patch] && input_value(g->values[OPT_patch], &document, &e) < 0)
    return refuse("patch", &e);
  if (!document)
    return 0;
  if (!json_is_object(document)) {
    json_decref(document);
    words_complain(SAY_want_object, g->values[OPT_file] ? g->values[OPT_file] : "--patch", NULL);
    return EXIT_USAGE;
  }
  b->r->body = g->verb->flags & SCHEDULE ? with_schedule(document) : document;
  return 0;
}

/* --version beats the version in the document, which beats "whatever is there". */
static void match_document(struct builder *b) {
  const struct verb *v = b->given->verb;
  if (!(v->flags & MATCH_NEED) || b->r->if_match[0])
    return;
  const json_t *version = json_object_get(b->r->body, "version");
  if (json_is_integer(version))
    (void)add_version(b, json_integer_value(version)); /* cannot fail */
  else
    add_header(b, "If-Match", "*");
}

static void add_namespace(struct builder *b) {
  const char *ns = b->given->values[OPT_namespace];
  unsigned flags = b->given->verb->flags;
  if (ns && flags & NS_QUERY)
    add_query(b, "namespace", ns);
  if (ns && flags & NS_BODY && !json_object_get(b->r->body, "namespace"))
    (void)json_object_set_new(body_of(b), "namespace",
                              json_string(ns)); /* what is not UTF-8 the server misses */
}

static void add_path(struct builder *b) {
  const struct verb *v = b->given->verb;
  const char *brace = strchr(v->path, '{');
  if (!brace) {
    str_addz(&b->r->target, v->path);
    return;
  }
  bool named = strncmp(brace, "{task}", 6) == 0 || strncmp(brace, "{group}", 7) == 0 ||
               strncmp(brace, "{channel}", 9) == 0 || strncmp(brace, "{rule}", 6) == 0 ||
               strncmp(brace, "{calendar}", 10) == 0;
  auto_free char *ref = named ? full_ref(b, b->given->args[0]) : mem_strdup(b->given->args[0]);
  str_add(&b->r->target, slice_n(v->path, (size_t)(brace - v->path)));
  request_encode(&b->r->target, slice_of(ref));
  str_addz(&b->r->target, strchr(brace, '}') + 1);
}

static void add_argument(struct builder *b) {
  const struct verb *v = b->given->verb;
  const char *value = b->given->args[strchr(v->path, '{') ? 1 : 0];
  if (v->arg)
    (void)json_object_set_new(body_of(b), v->arg,
                              json_string(value)); /* what is not UTF-8 the server misses */
}

static int add_options(struct builder *b) {
  for (int i = 0; i < OPT_MAX_; i++) {
    int code = 0;
    if (!b->given->values[i])
      continue;
    if (command_opts[i].place == PLACE_QUERY) {
      auto_free char *text = option_text(b, i);
      add_query(b, command_opts[i].key, text);
    } else if (command_opts[i].place == PLACE_BODY) {
      code = add_to_body(b, i);
    } else if (command_opts[i].place == PLACE_HEADER) {
      code = add_to_headers(b, i);
    }
    if (code)
      return code;
  }
  return 0;
}

/* What a body may come from, for a message. */
static int missing_body(const struct verb *v) {
  auto_str names;
  str_init(&names, 256);
  for (int i = 0; i < OPT_MAX_; i++)
    if ((v->options >> i & 1) && (i == OPT_file || i == OPT_patch || command_opts[i].place == PLACE_BODY)) {
      str_addz(&names, names.n ? ", " : "");
      str_addz(&names, i == OPT_file ? "-f" : "--");
      str_addz(&names, i == OPT_file ? "" : command_opts[i].name);
    }
  words_complain(SAY_need_one_of, names.p, NULL);
  return EXIT_USAGE;
}

int request_build(const struct invocation *given, struct request *ret) {
  const struct verb *v = given->verb;
  struct builder b = {.given = given, .r = ret, .query_mark = '?'};
  *ret = (struct request){.method = v->method};
  str_init(&ret->target, TARGET_MAX);
  add_path(&b);
  int code = read_document(&b);
  if (code == 0)
    code = add_options(&b);
  if (code)
    return code;
  if (v->flags & BODY_NEED && !ret->body)
    return missing_body(v);
  add_argument(&b);
  add_namespace(&b);
  match_document(&b);
  if (v->flags & IDEM) {
    if (!ret->idempotency_key[0])
      crypto_token_new("kelou-", ret->idempotency_key);
    add_header(&b, KEY_HEADER, ret->idempotency_key);
  }
  if (!str_failed(&ret->target))
    return 0;
  words_complain(SAY_too_many_bytes, NULL, NULL);
  return EXIT_USAGE;
}

void request_get(const char *path, struct request *ret) {
  *ret = (struct request){.method = "GET"};
  str_init(&ret->target, TARGET_MAX);
  str_addz(&ret->target, path);
}

void request_done(struct request *r) {
  str_done(&r->target);
  json_decref(r->body);
  r->body = NULL;
}
