/* Options, start and end. */
#include "internal.h"
#include "net/http_client.h"
#include "net/http_server.h"
#include "net/loop.h"
#include <stdio.h>
#include <unistd.h>

enum {
  SLOTS_MAX = 10000,
  QUEUE_MAX = 100000,
  WEIGHT_MAX = 1000,
  HANDLERS_MAX = 256,
  BATCH_MAX = 1000,
  NAME_MAX_BYTES = 128,
  TOKEN_MAX_BYTES = 4096,
  LABELS_MAX_BYTES = 4096,
  BODY_BYTES_MAX = 4 * 1024 * 1024,
  CONNECTIONS_MAX = 4096
};
static const usec_t FLUSH_AT_STOP = 2 * USEC_PER_SEC, DRAIN_SERVER = 1 * USEC_PER_SEC;

usec_t sdk_mono(void) { return clock_system.mono(&clock_system); }
usec_t sdk_wall(void) { return clock_system.wall(&clock_system); }

void sdk_log(const struct kelou_executor *e, enum kelou_level level, const char *fmt, ...) {
  char line[1024];
  va_list ap;
  if (!e->o.log)
    return;
  va_start(ap, fmt);
  (void)vsnprintf(line, sizeof line, fmt, ap); /* a cut line is good enough */
  va_end(ap);
  e->o.log(e->o.log_arg, level, line);
}

void kelou_options_init(struct kelou_options *o) {
  *o = (struct kelou_options){.listen_address = "127.0.0.1",
                              .slots = 10,
                              .queue = 16,
                              .weight = -1,
                              .journal_fsync = 1,
                              .report_batch = 500,
                              .remember = 100000,
                              .remember_for = USEC_PER_HOUR,
                              .remember_bytes = 64 * 1024 * 1024,
                              .outbox = 100000,
                              .outbox_bytes = 256 * 1024 * 1024,
                              .log_bytes = 16 * 1024 * 1024,
                              .replay_window = 300 * USEC_PER_SEC};
}

/* ---------------------------------------------------------------- checks */

static int check_text(const char *z, const char *name, size_t max, bool required, struct err *e) {
  size_t n = z ? strlen(z) : 0;
  if (required && n == 0)
    return err_field(e, ERR_MISSING, name, "%s is required", name);
  if (n > max || !slice_utf8_valid(slice_n(z, n)))
    return err_field(e, ERR_INVALID, name, "%s: expected at most %zu bytes of UTF-8", name, max);
  for (size_t i = 0; i < n; i++)
    if ((unsigned char)z[i] < 0x20 || z[i] == 0x7f)
      return err_field(e, ERR_INVALID, name, "%s: a control character", name);
  return 0;
}

static int check_range(int64_t v, int64_t min, int64_t max, const char *name, struct err *e) {
  if (v >= min && v <= max)
    return 0;
  return err_field(e, ERR_INVALID, name, "%s: expected %lld to %lld", name, (long long)min, (long long)max);
}

static int check_numbers(const struct kelou_options *o, struct err *e) {
  const struct {
    int64_t v, min, max;
    const char *name;
  } numbers[] = {{o->listen_port, 0, 65535, "listen_port"},
                 {o->slots, 1, SLOTS_MAX, "slots"},
                 {o->queue, 0, QUEUE_MAX, "queue"},
                 {o->weight, -1, WEIGHT_MAX, "weight"},
                 {o->report_batch, 1, BATCH_MAX, "report_batch"},
                 {o->remember, 0, INT32_MAX, "remember"},
                 {o->remember_for, 0, INT64_MAX, "remember_for"},
                 {o->remember_bytes, 0, INT64_MAX, "remember_bytes"},
                 {o->outbox, 1, INT32_MAX, "outbox"},
                 {o->outbox_bytes, 1, INT64_MAX, "outbox_bytes"},
                 {o->log_bytes, 0, INT64_MAX, "log_bytes"},
                 {o->replay_window, USEC_PER_SEC, USEC_PER_DAY, "replay_window"},
                 {o->heartbeat, 0, USEC_PER_DAY, "heartbeat"},
                 {(int64_t)o->handler_count, 1, HANDLERS_MAX, "handler_count"},
                 {(int64_t)o->secret_count, 1, KELOU_SECRETS_MAX, "secret_count"}};
  int r = 0;
  for (size_t i = 0; r == 0 && i < sizeof numbers / sizeof *numbers; i++)
    r = check_range(numbers[i].v, numbers[i].min, numbers[i].max, numbers[i].name, e);
  return r;
}

static int check_texts(const struct kelou_options *o, struct err *e) {
  const struct {
    const char *z, *name;
    size_t max;
    bool required;
  } texts[] = {{o->server, "server", 8192, true},
               {o->token, "token", TOKEN_MAX_BYTES, true},
               {o->ns, "ns", NAME_MAX_BYTES, false},
               {o->group, "group", NAME_MAX_BYTES, false},
               {o->id, "id", SDK_ID_MAX, false},
               {o->version, "version", NAME_MAX_BYTES, false},
               {o->advertised_url, "advertised_url", 1024, false},
               {o->listen_address, "listen_address", 64, true}};
  int r = 0;
  for (size_t i = 0; r == 0 && i < sizeof texts / sizeof *texts; i++)
    r = check_text(texts[i].z, texts[i].name, texts[i].max, texts[i].required, e);
  return r;
}

static int check_lists(const struct kelou_options *o, struct err *e) {
  int r = 0;
  for (size_t i = 0; r == 0 && i < o->secret_count; i++)
    r = check_text(o->secrets[i], "secrets", TOKEN_MAX_BYTES, true, e);
  for (size_t i = 0; r == 0 && i < o->handler_count; i++) {
    r = check_text(o->handlers[i].name, "handlers", NAME_MAX_BYTES, true, e);
    if (r == 0 && !o->handlers[i].run)
      r = err_field(e, ERR_MISSING, "handlers", "handler %s has no function", o->handlers[i].name);
  }
  if (r == 0 && o->labels) {
    auto_json *doc = NULL;
    r = json_read(slice_of(o->labels), LABELS_MAX_BYTES, &doc, e);
    if (r == 0)
      r = json_want_object(doc, "labels", e);
  }
  return r;
}

static int check(const struct kelou_options *o, struct err *e) {
  int r = check_numbers(o, e);
  if (r == 0)
    r = check_texts(o, e);
  return r < 0 ? r : check_lists(o, e);
}

/* ---------------------------------------------------------------- start */

static void copy_text(struct kelou_executor *e, const char **z) {
  if (*z)
    *z = arena_strdup(&e->mem, *z);
}

static void copy_options(struct kelou_executor *e, const struct kelou_options *o) {
  e->o = *o;
  const char **texts[] = {&e->o.server, &e->o.token,          &e->o.ns,      &e->o.group,
                          &e->o.id,     &e->o.listen_address, &e->o.version, &e->o.advertised_url,
                          &e->o.labels, &e->o.ca_file,        &e->o.journal};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    copy_text(e, texts[i]);
  struct kelou_handler *handlers = arena_array(&e->mem, o->handler_count, sizeof *handlers);
  for (size_t i = 0; i < o->handler_count; i++) {
    handlers[i] = o->handlers[i];
    copy_text(e, &handlers[i].name);
  }
  e->o.handlers = handlers;
  for (size_t i = 0; i < o->secret_count; i++)
    e->secrets[i] = arena_slice(&e->mem, slice_of(o->secrets[i]));
  e->o.secrets = NULL;
  e->attempts = (struct attempts){
      .max_ended = (size_t)o->remember, .max_age = o->remember_for, .max_bytes = (size_t)o->remember_bytes};
}

/* "/base" of "http://host:port/base/", or "". */
static const char *path_of_url(struct arena *mem, const char *url) {
  const char *host = strstr(url, "://"), *path = host ? strchr(host + 3, '/') : NULL;
  char *copy = arena_strdup(mem, path ? path : "");
  for (size_t n = strlen(copy); n && copy[n - 1] == '/'; n--)
    copy[n - 1] = 0;
  return copy;
}

/* What depends on the port that was given. */
static int name_it(struct kelou_executor *e, struct err *ret) {
  const char *address = e->o.listen_address;
  bool anywhere = strcmp(address, "0.0.0.0") == 0 || strcmp(address, "::") == 0;
  if (!e->o.advertised_url && anywhere)
    return err_field(ret, ERR_MISSING, "advertised_url", "advertised_url is required when listening on %s",
                     address);
  if (!e->o.advertised_url)
    e->o.advertised_url = arena_printf(&e->mem, strchr(address, ':') ? "http://[%s]:%d" : "http://%s:%d",
                                       address, kelou_port(e));
  if (!e->o.id) {
    char host[65] = "executor";
    (void)gethostname(host, sizeof host - 1); /* without a name the word must do */
    e->o.id = arena_printf(&e->mem, "%s-%d", host, kelou_port(e));
  }
  struct str s;
  str_init(&s, SDK_ID_JSON_MAX + 1);
  str_add_json(&s, slice_of(e->o.id));
  e->id_json = arena_strdup(&e->mem, s.p);
  str_done(&s);
  e->base_path = path_of_url(&e->mem, e->o.advertised_url);
  return 0;
}

static void perform(struct kelou_run *r) { run_perform(r, false); }
static struct target *outbox_target(void *executor) {
  return session_target(((struct kelou_executor *)executor)->session);
}
static void outbox_failed(void *executor, const struct target *t) {
  session_server_failed(((struct kelou_executor *)executor)->session, t);
}
static void outbox_log(void *executor, enum kelou_level level, const char *line) {
  sdk_log(executor, level, "%s", line);
}

static void make_outbox(struct kelou_executor *e) {
  struct outbox_options o;
  outbox_options_default(&o);
  o.loop = e->loop;
  o.client = e->client;
  o.token = e->o.token;
  o.batch = e->o.report_batch;
  o.max_count = e->o.outbox;
  o.max_bytes = e->o.outbox_bytes;
  o.max_line_bytes = e->o.log_bytes;
  o.target = outbox_target;
  o.failed = outbox_failed;
  o.log = outbox_log;
  o.arg = e;
  e->outbox = outbox_new(&o);
}

static int make_client(struct kelou_executor *e, struct err *ret) {
  int r = loop_new("kelou-sdk", &e->loop, ret);
  if (r == 0 && (r = loop_start(e->loop, ret)) < 0)
    return r;
  struct http_client_options o;
  http_client_options_default(&o);
  o.ca_file = e->o.ca_file;
  return r < 0 ? r : http_client_new(e->loop, &o, &e->client, ret);
}

static int listen_now(struct kelou_executor *e, struct err *ret) {
  struct http_server_options o;
  http_server_options_default(&o);
  o.address = e->o.listen_address;
  o.port = e->o.listen_port;
  o.max_body_bytes = BODY_BYTES_MAX;
  o.max_connections = CONNECTIONS_MAX;
  o.handle = receive;
  o.arg = e;
  return http_server_start(e->loop, &o, &e->server, ret);
}

static int start(struct kelou_executor *e, struct err *ret) {
  int r = e->o.journal ? journal_open(e->o.journal, e->o.journal_fsync, &e->journal, ret) : 0;
  if (r == 0)
    r = make_client(e, ret);
  if (r == 0)
    r = session_new(e, &e->session, ret);
  if (r < 0)
    return r;
  make_outbox(e);
  r = slots_new(e->o.slots, e->o.queue, perform, &e->slots, ret);
  e->base_path = "";
  e->id_json = "";
  if (r == 0)
    r = listen_now(e, ret);
  if (r == 0)
    r = name_it(e, ret);
  return r < 0 ? r : session_start(e->session, e->o.advertised_url, ret);
}

static int error_of(const struct err *why, char *ret_why, size_t why_size) {
  if (ret_why && why_size)
    (void)snprintf(ret_why, why_size, "%s", why->text); /* a cut text is good enough */
  return why->code <= ERR_INVALID ? KELOU_EINVAL : KELOU_EIO;
}

int kelou_start(const struct kelou_options *o, struct kelou_executor **ret, char *ret_why, size_t why_size) {
  struct err why = {0};
  if (check(o, &why) < 0)
    return error_of(&why, ret_why, why_size);
  struct kelou_executor *e = mem_zalloc(sizeof *e);
  mutex_init(&e->lock);
  cond_init(&e->idle);
  copy_options(e, o);
  if (start(e, &why) < 0) {
    kelou_stop(&e);
    return error_of(&why, ret_why, why_size);
  }
  *ret = e;
  return 0;
}

/* ---------------------------------------------------------------- questions */

int kelou_wait_registered(struct kelou_executor *e, int64_t timeout) {
  return session_wait_registered(e->session, timeout) ? 0 : KELOU_ETIMEDOUT;
}

int kelou_port(const struct kelou_executor *e) { return http_server_port(e->server); }
const char *kelou_id(const struct kelou_executor *e) { return e->o.id; }

void kelou_get_counts(struct kelou_executor *e, struct kelou_counts *ret) {
  struct slots_counts p;
  struct outbox_counts b;
  slots_count(e->slots, &p);
  outbox_count(e->outbox, &b);
  mutex_lock(&e->lock);
  struct kelou_counts c = e->counts;
  mutex_unlock(&e->lock);
  c.running = p.running;
  c.queued = p.queued;
  c.reports_waiting = b.waiting;
  c.reports_acknowledged = b.acknowledged;
  c.report_requests = b.requests;
  *ret = c;
}

/* ---------------------------------------------------------------- the end */

static bool wait_idle(struct kelou_executor *e, usec_t until) {
  mutex_lock(&e->lock);
  for (usec_t now = sdk_mono(); e->active && now < until; now = sdk_mono())
    (void)cond_wait(&e->idle, &e->lock, until == USEC_NEVER ? USEC_NEVER : until - now);
  bool idle = e->active == 0;
  mutex_unlock(&e->lock);
  return idle;
}

int kelou_drain(struct kelou_executor *e, int64_t grace) {
  usec_t until;
  if (__builtin_add_overflow(sdk_mono(), grace, &until))
    until = USEC_NEVER;
  atomic_store(&e->draining, true);
  bool done = wait_idle(e, until) && outbox_wait_empty(e->outbox, until) && session_leave(e->session, until);
  return done ? 0 : KELOU_ETIMEDOUT;
}

/* Running ones are asked to stop; those that wait are left to whoever gets them next. */
static void stop_all(struct kelou_executor *e) {
  struct left {
    struct kelou_run *run;
    bool never; /* begun */
  } *left = NULL;
  struct kelou_run *r, *next;
  size_t n = 0, cap = 0;
  mutex_lock(&e->lock);
  HASH_ITER (hh, e->attempts.by_id, r, next) {
    if (r->phase == PHASE_ENDED)
      continue;
    run_stop(r, STOP_SHUTDOWN);
    mem_reserve(left, n, cap);
    left[n++].run = run_ref(r);
  }
  for (size_t i = 0; i < n; i++) /* not while iterating: the table may forget some */
    left[i].never = run_leave_queue(left[i].run, SAID_NOTHING);
  mutex_unlock(&e->lock);
  for (size_t i = 0; i < n; i++) {
    if (left[i].never)
      run_left(left[i].run);
    run_unref(&left[i].run);
  }
  mem_free(left);
}

void kelou_stop(struct kelou_executor **ep) {
  struct kelou_executor *e = *ep;
  if (!e)
    return;
  atomic_store(&e->draining, true);
  if (e->server) {
    stop_all(e);
    (void)wait_idle(e, USEC_NEVER);
    (void)outbox_wait_empty(e->outbox, sdk_mono() + FLUSH_AT_STOP);
    (void)session_leave(e->session, sdk_mono() + FLUSH_AT_STOP); /* else the centre misses the heartbeats */
    http_server_drain(&e->server, DRAIN_SERVER);
  }
  session_free(&e->session);
  slots_free(&e->slots);
  if (e->outbox)
    outbox_close(e->outbox);
  if (e->client)
    http_client_free(&e->client);
  outbox_free(&e->outbox);
  if (e->loop)
    loop_stop(&e->loop);
  mutex_lock(&e->lock);
  attempts_clear(&e->attempts);
  mutex_unlock(&e->lock);
  journal_close(&e->journal);
  cond_done(&e->idle);
  mutex_done(&e->lock);
  arena_done(&e->mem);
  *ep = NULL;
  mem_free(e);
}
