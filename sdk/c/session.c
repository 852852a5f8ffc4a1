/* Registration, heartbeats, deregistration: one thread, one call after the other. */
#include "internal.h"
#include "base/rng.h"
#include "net/http_client.h"
#include <inttypes.h>

enum { ANSWER_MAX = 65536, BODY_MAX = 65536, SERVERS_MAX = 16 };
static const usec_t CALL_TIMEOUT = 5 * USEC_PER_SEC, RETRY_FIRST = 100 * USEC_PER_MS,
                    RETRY_MOST = 10 * USEC_PER_SEC, BEAT_LEAST = 10 * USEC_PER_MS,
                    BEAT_DEFAULT = 10 * USEC_PER_SEC, STALE_MOST = 300 * USEC_PER_SEC;

enum step { STEP_WORK, STEP_LEAVE, STEP_END };

struct session {
  struct kelou_executor *ex;
  struct thread thread;
  char *authorization, *registration, *beat_path, *leave_path;
  struct slice server[SERVERS_MAX];
  int servers;
  struct rng rng; /* the thread's, as are these */
  bool told;      /* the failure that lasts has been logged */
  usec_t retry, stale_pause;
  int64_t incarnation;
  usec_t beat_every;
  struct mutex lock; /* protects the rest */
  struct cond changed;
  struct target *target[SERVERS_MAX]; /* NULL: its name could not be looked up */
  bool doubtful[SERVERS_MAX]; /* it did not answer: look the name up anew, its address may have changed */
  int current;                /* server in use */
  bool registered, left;
  int64_t registered_as; /* incarnation */
  enum step step;
};

/* ---------------------------------------------------------------- calls */

struct answer { /* of a call that this thread waits for */
  struct session *s;
  bool done;
  int status; /* 0: none */
  usec_t retry_after;
  struct str body; /* or why there is none */
};

static void on_answer(const struct http_result *res, void *arg) {
  struct answer *a = arg;
  mutex_lock(&a->s->lock);
  a->status = res->outcome == HTTP_CALL_ANSWERED ? res->status : 0;
  if (a->status)
    str_add(&a->body, slice_n(res->body.p, res->body.n > ANSWER_MAX ? ANSWER_MAX : res->body.n));
  else
    str_addz(&a->body, res->why);
  a->done = true;
  cond_broadcast(&a->s->changed); /* under the lock: the answer's stack frame goes away right after */
  mutex_unlock(&a->s->lock);
}

/* The server in use, looked up if need be (blocks). */
static int look_up(struct session *s, struct target **ret, struct err *e) {
  mutex_lock(&s->lock);
  int which = s->current;
  const struct target *before = s->target[which]; /* compared only */
  bool known = before && !s->doubtful[which];
  mutex_unlock(&s->lock);
  if (!known) {
    struct target *t;
    int r = target_parse(s->server[which], NULL, &t, e);
    if (r < 0) {
      session_server_failed(s, before);
      return r;
    }
    mutex_lock(&s->lock);
    target_unref(&s->target[which]);
    s->target[which] = t;
    s->doubtful[which] = false;
    mutex_unlock(&s->lock);
  }
  mutex_lock(&s->lock);
  *ret = target_ref(s->target[which]);
  mutex_unlock(&s->lock);
  return 0;
}

/* POST and wait. The caller has initialised a->body. */
static void call(struct session *s, const char *path, const char *body, struct answer *a) {
  struct err e = {0};
  struct target *target = NULL;
  a->s = s;
  if (look_up(s, &target, &e) < 0) {
    str_addz(&a->body, e.text);
    return;
  }
  struct http_header headers[] = {{SLICE("Authorization"), slice_of(s->authorization)},
                                  {SLICE("Content-Type"), SLICE("application/json")}};
  struct http_call c = {.target = target,
                        .method = "POST",
                        .path = slice_of(path),
                        .headers = headers,
                        .header_count = 2,
                        .body = slice_of(body),
                        .timeout = CALL_TIMEOUT,
                        .done = on_answer,
                        .arg = a};
  http_client_call(s->ex->client, &c);
  mutex_lock(&s->lock);
  while (!a->done)
    (void)cond_wait(&s->changed, &s->lock, USEC_NEVER); /* bounded by the call's own time-out */
  mutex_unlock(&s->lock);
  if (!a->status)
    session_server_failed(s, target);
  target_unref(&target);
}

/* Wait, unless something else is to be done. */
static void rest(struct session *s, usec_t length) {
  usec_t now = sdk_mono(), until = now + length;
  mutex_lock(&s->lock);
  for (; s->step == STEP_WORK && now < until; now = sdk_mono())
    (void)cond_wait(&s->changed, &s->lock, until - now);
  mutex_unlock(&s->lock);
}

static void tell(struct session *s, const char *what, const struct answer *a) {
  int n = (int)(a->body.n > 300 ? 300 : a->body.n);
  const char *text = a->body.p ? a->body.p : "";
  enum kelou_level level = s->told ? KELOU_DEBUG : KELOU_WARN;
  if (a->status)
    sdk_log(s->ex, level, "%s, trying again: status %d: %.*s", what, a->status, n, text);
  else
    sdk_log(s->ex, level, "%s, trying again: %.*s", what, n, text);
  s->told = true;
}

/* ---------------------------------------------------------------- the three calls */

static int read_registration(struct session *s, struct slice body) {
  auto_json *doc = NULL;
  usec_t every = BEAT_DEFAULT;
  int64_t incarnation = 0;
  int r = json_read(body, ANSWER_MAX, &doc, NULL);
  if (r >= 0)
    r = json_want_object(doc, "", NULL);
  if (r >= 0)
    r = json_get_duration(doc, "heartbeat_interval", BEAT_LEAST, USEC_PER_DAY, &every, NULL);
  if (r >= 0)
    r = json_get_i64(doc, "incarnation", 0, INT64_MAX, &incarnation, NULL);
  if (r < 0)
    return r;
  s->incarnation = incarnation;
  s->beat_every = s->ex->o.heartbeat > 0 ? s->ex->o.heartbeat : every;
  return 0;
}

static void set_registered(struct session *s, bool yes) {
  mutex_lock(&s->lock);
  s->registered = yes;
  s->registered_as = s->incarnation;
  cond_broadcast(&s->changed);
  mutex_unlock(&s->lock);
}

static bool register_once(struct session *s) {
  struct answer a = {0};
  str_init(&a.body, ANSWER_MAX);
  call(s, "/api/v1/executors/register", s->registration, &a);
  bool good = a.status == 200 && read_registration(s, str_slice(&a.body)) >= 0;
  if (good) {
    s->told = false;
    s->retry = 0;
    sdk_log(s->ex, KELOU_INFO, "registered: executor %s, incarnation %" PRId64, s->ex->o.id, s->incarnation);
    set_registered(s, true);
  } else {
    tell(s, "not registered", &a);
  }
  str_done(&a.body);
  return good;
}

static void try_to_register(struct session *s) {
  if (register_once(s))
    return;
  s->retry = s->retry ? s->retry * 2 : RETRY_FIRST;
  if (s->retry > RETRY_MOST)
    s->retry = RETRY_MOST;
  rest(s, s->retry - (usec_t)rng_below(&s->rng, (uint64_t)s->retry / 5 + 1));
}

/* Somebody registered under our id. It may have been a registration of ours whose answer was lost: once more, but ever more
 * slowly, so that two instances with one id do not take each other's runs away all the time. */
static void on_stale(struct session *s) {
  sdk_log(s->ex, KELOU_ERROR,
          "another instance has registered as %s in this group; registering anew in %" PRId64 " ms",
          s->ex->o.id, s->stale_pause / USEC_PER_MS);
  set_registered(s, false);
  rest(s, s->stale_pause);
  s->stale_pause = s->stale_pause ? s->stale_pause * 2 : s->beat_every;
  if (s->stale_pause > STALE_MOST)
    s->stale_pause = STALE_MOST;
}

static bool beat_says_gone(struct slice body) {
  return memmem(body.p ? body.p : "", body.n, "\"LOST\"", 6) ||
         memmem(body.p ? body.p : "", body.n, "\"OFFLINE\"", 9);
}

static void beat(struct session *s) {
  struct answer a = {0};
  struct kelou_counts counts;
  char body[96];
  str_init(&a.body, ANSWER_MAX);
  kelou_get_counts(s->ex, &counts);
  (void)snprintf(body, sizeof body, "{\"incarnation\":%" PRId64 ",\"running\":%" PRId64 "}", s->incarnation,
                 counts.running + counts.queued); /* fits */
  call(s, s->beat_path, body, &a);
  if (a.status == 404 || (a.status == 200 && beat_says_gone(str_slice(&a.body)))) {
    sdk_log(s->ex, KELOU_WARN, "the centre does not know this executor any more; registering anew");
    set_registered(s, false);
  } else if (a.status == 412) {
    on_stale(s);
  } else if (a.status == 200) {
    s->told = false;
    s->retry = 0;
  } else {
    tell(s, "heartbeat not taken", &a);
  }
  str_done(&a.body);
}

static void leave(struct session *s) {
  struct answer a = {0};
  str_init(&a.body, ANSWER_MAX);
  bool hurried = false;
  for (int i = 0; s->incarnation && i <= s->servers && !a.status && !hurried; i++) {
    str_clear(&a.body);
    a.done = false;
    call(s, s->leave_path, "{}", &a);
    mutex_lock(&s->lock);
    hurried = s->step == STEP_END;
    mutex_unlock(&s->lock);
  }
  if (a.status == 204 || a.status == 200 || a.status == 404)
    sdk_log(s->ex, KELOU_INFO, "deregistered: executor %s", s->ex->o.id);
  else if (s->incarnation)
    sdk_log(s->ex, KELOU_WARN, "not deregistered, the centre will miss the heartbeats: status %d", a.status);
  str_done(&a.body);
  mutex_lock(&s->lock);
  s->registered = false;
  s->left = true;
  s->step = STEP_END;
  cond_broadcast(&s->changed);
  mutex_unlock(&s->lock);
}

static void run(void *session) {
  struct session *s = session;
  for (;;) {
    mutex_lock(&s->lock);
    enum step step = s->step;
    bool registered = s->registered;
    mutex_unlock(&s->lock);
    if (step == STEP_END)
      return;
    if (step == STEP_LEAVE) {
      leave(s);
    } else if (!registered) {
      try_to_register(s);
    } else {
      /* after a failed beat sooner: three that fail in a row mean lost */
      usec_t wait = s->told ? s->beat_every / 4
                            : s->beat_every - (usec_t)rng_below(&s->rng, (uint64_t)s->beat_every / 10 + 1);
      rest(s, wait);
      mutex_lock(&s->lock);
      step = s->step;
      mutex_unlock(&s->lock);
      if (step == STEP_WORK)
        beat(s);
    }
  }
}

/* ---------------------------------------------------------------- for the others */

int64_t session_incarnation(struct session *s) {
  mutex_lock(&s->lock);
  int64_t incarnation = s->registered ? s->registered_as : 0;
  mutex_unlock(&s->lock);
  return incarnation;
}

int session_ask(struct session *s, const char *path, const char *body, struct str *ret) {
  struct answer a = {0};
  str_init(&a.body, ANSWER_MAX);
  call(s, path, body, &a);
  str_add(ret, slice_n(a.body.p, a.body.n));
  str_done(&a.body);
  return a.status;
}

struct target *session_target(struct session *s) {
  mutex_lock(&s->lock);
  struct target *t = s->target[s->current] ? target_ref(s->target[s->current]) : NULL;
  mutex_unlock(&s->lock);
  return t;
}

void session_server_failed(struct session *s, const struct target *t) {
  mutex_lock(&s->lock);
  if (s->target[s->current] == t) { /* else somebody else has said so */
    s->doubtful[s->current] = true;
    s->current = (s->current + 1) % s->servers;
  }
  mutex_unlock(&s->lock);
}

bool session_wait_registered(struct session *s, usec_t timeout) {
  usec_t now = sdk_mono(), until;
  if (timeout < 0 || __builtin_add_overflow(now, timeout, &until))
    until = USEC_NEVER;
  mutex_lock(&s->lock);
  for (; !s->registered && s->step == STEP_WORK && now < until; now = sdk_mono())
    (void)cond_wait(&s->changed, &s->lock, until == USEC_NEVER ? USEC_NEVER : until - now);
  bool yes = s->registered;
  mutex_unlock(&s->lock);
  return yes;
}

bool session_leave(struct session *s, usec_t until) {
  if (!s->thread.running)
    return true;
  mutex_lock(&s->lock);
  if (s->step == STEP_WORK) {
    s->step = STEP_LEAVE;
    cond_broadcast(&s->changed);
  }
  for (usec_t now = sdk_mono(); !s->left && now < until; now = sdk_mono())
    (void)cond_wait(&s->changed, &s->lock, until == USEC_NEVER ? USEC_NEVER : until - now);
  bool left = s->left;
  mutex_unlock(&s->lock);
  return left;
}

/* ---------------------------------------------------------------- making */

static void add_encoded(struct str *out, const char *z) {
  for (; *z; z++) {
    bool plain = (*z >= '0' && *z <= '9') || (*z >= 'a' && *z <= 'z') || (*z >= 'A' && *z <= 'Z') ||
                 strchr("-_.~", *z);
    if (plain)
      str_addc(out, *z);
    else
      str_addf(out, "%%%02X", (unsigned char)*z);
  }
}

static char *path_of(const struct kelou_options *o, const char *verb) {
  struct str s;
  str_init(&s, 4096);
  str_addz(&s, "/api/v1/executors/");
  add_encoded(&s, o->id);
  str_addf(&s, "/%s", verb);
  if (o->ns) {
    str_addz(&s, "?namespace=");
    add_encoded(&s, o->ns);
  }
  if (o->group) {
    str_addz(&s, o->ns ? "&group=" : "?group=");
    add_encoded(&s, o->group);
  }
  return str_take(&s); /* it fits: the names were checked */
}

static void add_field(struct str *s, const char *name, const char *value) {
  if (!value)
    return;
  str_addf(s, ",\"%s\":\"", name);
  str_add_json(s, slice_of(value));
  str_addc(s, '"');
}

static char *registration_of(const struct kelou_options *o, const char *url) {
  struct str s;
  str_init(&s, BODY_MAX);
  str_addf(&s, "{\"slots\":%d", o->slots);
  if (o->weight >= 0)
    str_addf(&s, ",\"weight\":%d", o->weight);
  add_field(&s, "id", o->id);
  add_field(&s, "namespace", o->ns);
  add_field(&s, "group", o->group);
  add_field(&s, "url", url);
  add_field(&s, "version", o->version);
  if (o->labels) {
    str_addz(&s, ",\"labels\":");
    str_addz(&s, o->labels);
  }
  str_addz(&s, ",\"handlers\":[");
  for (size_t i = 0; i < o->handler_count; i++) {
    str_addz(&s, i ? ",\"" : "\"");
    str_add_json(&s, slice_of(o->handlers[i].name));
    str_addc(&s, '"');
  }
  str_addz(&s, "]}");
  char *text = str_take(&s);
  str_done(&s);
  return text;
}

static int read_servers(struct session *s, struct err *e) {
  for (struct slice rest_of = slice_of(s->ex->o.server); rest_of.n;) {
    struct slice one = slice_trim(slice_cut(rest_of, ',', &rest_of));
    if (s->servers == SERVERS_MAX)
      return err_field(e, ERR_INVALID, "server", "expected at most %d URLs", SERVERS_MAX);
    if (!one.n)
      continue;
    struct target *t = NULL;
    int r = target_parse(one, NULL, &t, e);
    if (r == ERR_INVALID || r == ERR_ADDRESS)
      return r;
    s->server[s->servers] = one;
    s->target[s->servers++] = t;
  }
  return s->servers ? 0 : err_field(e, ERR_MISSING, "server", "expected the base URL of the centre");
}

int session_new(struct kelou_executor *ex, struct session **ret, struct err *e) {
  struct session *s = mem_zalloc(sizeof *s);
  struct str token;
  s->ex = ex;
  s->beat_every = BEAT_DEFAULT;
  mutex_init(&s->lock);
  cond_init(&s->changed);
  rng_seed(&s->rng, (uint64_t)sdk_wall() ^ (uint64_t)(uintptr_t)s);
  str_init(&token, 8192);
  str_addf(&token, "Bearer %s", ex->o.token);
  s->authorization = str_take(&token); /* the token's length was checked */
  int r = read_servers(s, e);
  if (r < 0)
    session_free(&s);
  else
    *ret = s;
  return r;
}

int session_start(struct session *s, const char *url, struct err *e) {
  s->beat_path = path_of(&s->ex->o, "heartbeat");
  s->leave_path = path_of(&s->ex->o, "deregister");
  s->registration = registration_of(&s->ex->o, url);
  if (!s->registration)
    return err_field(e, ERR_TOO_LARGE, "handlers", "the registration is larger than %d bytes", BODY_MAX);
  return thread_start(&s->thread, "kelou-session", run, s, e);
}

void session_free(struct session **sp) {
  struct session *s = *sp;
  if (!s)
    return;
  mutex_lock(&s->lock);
  s->step = STEP_END;
  cond_broadcast(&s->changed);
  mutex_unlock(&s->lock);
  if (s->thread.running)
    thread_join(&s->thread);
  for (int i = 0; i < s->servers; i++)
    target_unref(&s->target[i]);
  mem_free(s->authorization);
  mem_free(s->registration);
  mem_free(s->beat_path);
  mem_free(s->leave_path);
  cond_done(&s->changed);
  mutex_done(&s->lock);
  mem_freep(sp);
}
