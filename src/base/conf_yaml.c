#include "base/conf_internal.h"
#include "base/mem.h"
#include "base/parse.h"
#include "base/yaml_features.h"
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define KEYS_MAX    256 /* of one section */
#define NESTING_MAX 16  /* in a value that is passed over: libyaml takes quadratic time over deep ones */

struct reader {
  const struct conf_load *load;
  const char *path;
  yaml_parser_t parser;
  yaml_event_t event; /* the current one */
  bool dead;          /* nothing more can be read: the error is written */
  char name[CONF_NAME_MAX * 2];
};

static void complain_at(struct reader *r, yaml_mark_t mark, const struct err *e) {
  char where[ERR_FIELD_MAX];
  (void)snprintf(where, sizeof where, "%.60s:%zu:%zu", r->path, mark.line + 1, mark.column + 1);
  conf_complain(r->load->errors, where, r->name, e);
}

static void complain(struct reader *r, int code, const char *text) {
  struct err e = {0};
  (void)err_set(&e, code, "%s", text);
  complain_at(r, r->event.start_mark, &e);
}

static void give_up(struct reader *r, const char *text) {
  complain(r, ERR_MALFORMED, text);
  r->dead = true;
}

/* The next event; false when there is none to be used. */
static bool next(struct reader *r) {
  if (r->dead)
    return false;
  yaml_event_delete(&r->event);
  if (!yaml_parser_parse(&r->parser, &r->event)) {
    struct err e = {0};
    memset(&r->event, 0, sizeof r->event);
    r->dead = true;
    if (r->parser.error == YAML_MEMORY_ERROR)
      mem_exhausted();
    (void)err_set(&e, ERR_MALFORMED, "not valid YAML: %s", r->parser.problem ? r->parser.problem : "unknown");
    complain_at(r, r->parser.problem_mark, &e);
    return false;
  }
  const char *refused = yaml_refused(&r->event);
  if (refused)
    give_up(r, refused);
  return !r->dead;
}

/* Pass over the value whose first event is current. */
static void skip(struct reader *r) {
  size_t depth = 0;
  do {
    yaml_event_type_t type = r->event.type;
    if (type == YAML_MAPPING_START_EVENT || type == YAML_SEQUENCE_START_EVENT)
      depth++;
    else if (type == YAML_MAPPING_END_EVENT || type == YAML_SEQUENCE_END_EVENT)
      depth--;
    if (depth > NESTING_MAX)
      give_up(r, "nested too deeply");
  } while (depth && next(r));
}

static struct slice scalar(const yaml_event_t *ev) {
  return slice_n((const char *)ev->data.scalar.value, ev->data.scalar.length);
}

static bool is_null(const yaml_event_t *ev) {
  struct slice s = scalar(ev);
  return ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
         (!s.n || slice_eqz(s, "~") || slice_eqz(s, "null"));
}

static bool is_section(const struct conf *c, const char *name) {
  size_t n = strlen(name);
  for (size_t i = 0; i < c->n; i++)
    if (strncmp(c->items[i].name, name, n) == 0 && c->items[i].name[n] == '.')
      return true;
  return false;
}

static void free_list(char **list) {
  for (size_t i = 0; list[i]; i++)
    mem_free(list[i]);
  mem_free(list);
}

static void store(struct reader *r, int index, const struct slice *parts, size_t n, yaml_mark_t mark) {
  struct err e = {0};
  if (conf_put(r->load->conf, index, CONF_FROM_FILE, parts, n, &e) < 0)
    complain_at(r, mark, &e);
}

static void read_list(struct reader *r, int index) {
  yaml_mark_t mark = r->event.start_mark;
  char **texts = mem_array(CONF_LIST_MAX + 2, sizeof *texts);
  struct slice parts[CONF_LIST_MAX + 1];
  size_t n = 0;
  bool good = true;
  while (next(r) && r->event.type != YAML_SEQUENCE_END_EVENT) {
    if (r->event.type != YAML_SCALAR_EVENT || is_null(&r->event)) {
      complain(r, ERR_INVALID, "expected a text as an entry of the list");
      good = false;
      skip(r);
    } else if (n <= CONF_LIST_MAX) { /* one too many is what the check refuses */
      texts[n] = mem_slicedup(scalar(&r->event));
      parts[n] = slice_n(texts[n], r->event.data.scalar.length);
      n++;
    }
  }
  if (good && !r->dead)
    store(r, index, parts, n, mark);
  free_list(texts);
}

static void read_setting(struct reader *r, int index) {
  bool list = r->load->conf->items[index].type == CONF_LIST;
  if (list && r->event.type == YAML_SEQUENCE_START_EVENT) {
    read_list(r, index);
  } else if (list) {
    complain(r, ERR_INVALID, "expected a list such as [a, b]");
    skip(r);
  } else if (r->event.type != YAML_SCALAR_EVENT) {
    complain(r, ERR_INVALID, "expected one value, not a list or section");
    skip(r);
  } else if (is_null(&r->event)) {
    complain(r, ERR_INVALID, "expected a value (an empty text is written \"\")");
  } else {
    struct slice text = scalar(&r->event);
    store(r, index, &text, 1, r->event.start_mark);
  }
}

static void complain_unknown(struct reader *r, struct slice key) {
  struct err e = {0};
  auto_free const char **names = conf_names(r->load->conf);
  const char *near = parse_nearest(slice_of(r->name), names);
  if (memchr(key.p, '.', key.n))
    (void)err_set(&e, ERR_UNKNOWN_FIELD, "write nested sections, not names with dots");
  else if (near)
    (void)err_set(&e, ERR_UNKNOWN_FIELD, "this setting is not known; did you mean %s?", near);
  else
    (void)err_set(&e, ERR_UNKNOWN_FIELD, "this setting is not known");
  complain_at(r, r->event.start_mark, &e);
}

/* The key is the current event; false: it is not to be used (complained about). It is added to r->name and
 * `seen`. */
static bool read_key(struct reader *r, size_t prefix, char **seen) {
  if (r->event.type != YAML_SCALAR_EVENT) {
    give_up(r, "expected the name of a setting");
    return false;
  }
  struct slice key = scalar(&r->event);
  (void)snprintf(r->name + prefix, sizeof r->name - prefix, "%s%.*s", prefix ? "." : "", SLICE_FMT(key));
  size_t n = 0;
  for (; seen[n]; n++)
    if (slice_eqz(key, seen[n])) {
      complain(r, ERR_MALFORMED, "this key stands here twice");
      return false;
    }
  if (n == KEYS_MAX) {
    give_up(r, "too many keys in one section");
    return false;
  }
  seen[n] = mem_slicedup(key);
  bool known = !memchr(key.p, '.', key.n) && !memchr(key.p, 0, key.n) &&
               (conf_find(r->load->conf, slice_of(r->name)) >= 0 || is_section(r->load->conf, r->name));
  if (!known)
    complain_unknown(r, key);
  return known;
}

/* The mapping whose start is current, up to its end. Only sections of the table are entered, so the depth of
 * the recursion is the depth of the names. */
static void read_section(struct reader *r) {
  size_t prefix = strlen(r->name);
  char **seen = mem_array(KEYS_MAX + 1, sizeof *seen);
  while (next(r) && r->event.type != YAML_MAPPING_END_EVENT) {
    bool known = read_key(r, prefix, seen);
    if (!next(r))
      break;
    int index = known ? conf_find(r->load->conf, slice_of(r->name)) : -1;
    if (!known) {
      skip(r);
    } else if (index >= 0) {
      read_setting(r, index);
    } else if (r->event.type == YAML_MAPPING_START_EVENT) {
      read_section(r);
    } else if (r->event.type != YAML_SCALAR_EVENT || !is_null(&r->event)) {
      complain(r, ERR_INVALID, "expected a section of settings");
      skip(r);
    }
    if (!r->dead)
      r->name[prefix] = 0;
  }
  r->name[prefix] = 0;
  free_list(seen);
}

static void read_stream(struct reader *r) {
  if (!next(r) || !next(r) || r->event.type != YAML_DOCUMENT_START_EVENT || !next(r))
    return; /* an empty file sets nothing */
  if (r->event.type == YAML_MAPPING_START_EVENT)
    read_section(r);
  else if (r->event.type != YAML_SCALAR_EVENT || !is_null(&r->event))
    give_up(r, "expected sections of settings");
  if (next(r) && next(r) && r->event.type != YAML_STREAM_END_EVENT)
    give_up(r, "expected one YAML document");
}

/* The file's text (free with mem_free); sizes and read errors come out as codes. */
static int slurp(const char *path, char **ret, size_t *ret_n, struct err *e) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    int code = -errno;
    return err_set(e, code, "cannot open the file: %s", strerror(-code));
  }
  char *text = mem_alloc(CONF_FILE_MAX + 1);
  size_t n = 0;
  ssize_t got;
  do {
    got = read(fd, text + n, CONF_FILE_MAX + 1 - n);
    n += got > 0 ? (size_t)got : 0;
  } while (n <= CONF_FILE_MAX && (got > 0 || (got < 0 && errno == EINTR)));
  int code = got < 0 ? -errno : n > CONF_FILE_MAX ? ERR_TOO_LARGE : 0;
  (void)close(fd);
  if (code < 0) {
    mem_free(text);
    return code == ERR_TOO_LARGE ? err_set(e, code, "the file is larger than %zu bytes", CONF_FILE_MAX)
                                 : err_set(e, code, "cannot read the file: %s", strerror(-code));
  }
  *ret = text;
  *ret_n = n;
  return 0;
}

void conf_yaml(const struct conf_load *l, const char *path) {
  struct reader r = {.load = l, .path = path};
  struct err e = {0};
  auto_free char *text = NULL;
  size_t n = 0;
  if (slurp(path, &text, &n, &e) < 0) {
    conf_complain(l->errors, path, "", &e);
    return;
  }
  if (!yaml_parser_initialize(&r.parser))
    mem_exhausted();
  yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, n);
  read_stream(&r);
  yaml_event_delete(&r.event);
  yaml_parser_delete(&r.parser);
}
