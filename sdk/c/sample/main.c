/* kelou-sample-executor: an executor with a few handlers to try Kelou with, and an example of the SDK's use. */
#include "sample.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/parse.h"
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { HANDLERS = 5, SECRET_FILE_MAX = 8192, EXIT_USAGE = 2 };

static const char usage_text[] =
    "usage: kelou-sample-executor --server URL --token-file FILE --secret-file FILE [options]\n"
    "  --server URL[,URL…]     the centre\n"
    "  --token-file FILE       an executor token\n"
    "  --secret-file FILE      the group's HMAC secret, a line each while it is being rotated\n"
    "  --namespace NS, --group NAME, --id ID (or --name ID)\n"
    "  --listen ADDRESS:PORT   127.0.0.1:0; port 0: any free one\n"
    "  --url URL               how the centre reaches this executor, if not by the address it listens on\n"
    "  --slots N, --queue N    10 runs at a time, 16 waiting\n"
    "  --weight N              its share of the runs, if not as the centre has it; 0: only those that name "
    "it\n"
    "  --labels JSON           an object: tasks may ask for them\n"
    "  --heartbeat DURATION    if not as the centre says\n"
    "  --handlers LIST         of echo,sleep,fail,shell,http; all\n"
    "  --allow NAME=/PROGRAM [ARG…]         a command of the handler shell, with the payload's arguments "
    "behind\n"
    "  --allow-fixed NAME=/PROGRAM [ARG…]   the same, and the payload has no arguments\n"
    "  --allow-file FILE                    --allow, a line each\n"
    "  --http-networks LIST    that the handler http may call: CIDRs or loopback, private, public; public\n"
    "  --answer-inline         echo answers the delivery with its result\n"
    "  --journal FILE          start and end of each attempt as JSON lines; --journal-no-fsync\n"
    "  --grace DURATION        30s: for what is running, after SIGTERM; a second SIGTERM ends at once\n"
    "  --log-level LEVEL       debug, info, warn or error; info\n";

struct sample {
  struct kelou_options o;
  struct kelou_handler handlers[HANDLERS];
  struct allowed *allowed;
  struct caller *caller;
  char *token, *secret_text, *address;
  const char *secrets[KELOU_SECRETS_MAX];
  struct slice wanted, networks; /* of the handlers; of the handler http */
  usec_t grace;
  enum log_level level;
};

/* ---------------------------------------------------------------- options */

enum sample_option {
  OPT_SERVER = 256,
  OPT_TOKEN_FILE,
  OPT_SECRET_FILE,
  OPT_NAMESPACE,
  OPT_GROUP,
  OPT_ID,
  OPT_LISTEN,
  OPT_URL,
  OPT_SLOTS,
  OPT_QUEUE,
  OPT_WEIGHT,
  OPT_LABELS,
  OPT_HEARTBEAT,
  OPT_HANDLERS,
  OPT_ALLOW,
  OPT_ALLOW_FIXED,
  OPT_ALLOW_FILE,
  OPT_HTTP_NETWORKS,
  OPT_ANSWER_INLINE,
  OPT_JOURNAL,
  OPT_JOURNAL_NO_FSYNC,
  OPT_GRACE,
  OPT_LOG_LEVEL,
  OPT_HELP
};

static const struct option options[] = {{"server", 1, NULL, OPT_SERVER},
                                        {"token-file", 1, NULL, OPT_TOKEN_FILE},
                                        {"secret-file", 1, NULL, OPT_SECRET_FILE},
                                        {"namespace", 1, NULL, OPT_NAMESPACE},
                                        {"group", 1, NULL, OPT_GROUP},
                                        {"id", 1, NULL, OPT_ID},
                                        {"name", 1, NULL, OPT_ID},
                                        {"listen", 1, NULL, OPT_LISTEN},
                                        {"url", 1, NULL, OPT_URL},
                                        {"slots", 1, NULL, OPT_SLOTS},
                                        {"queue", 1, NULL, OPT_QUEUE},
                                        {"weight", 1, NULL, OPT_WEIGHT},
                                        {"labels", 1, NULL, OPT_LABELS},
                                        {"heartbeat", 1, NULL, OPT_HEARTBEAT},
                                        {"handlers", 1, NULL, OPT_HANDLERS},
                                        {"allow", 1, NULL, OPT_ALLOW},
                                        {"allow-fixed", 1, NULL, OPT_ALLOW_FIXED},
                                        {"allow-file", 1, NULL, OPT_ALLOW_FILE},
                                        {"http-networks", 1, NULL, OPT_HTTP_NETWORKS},
                                        {"answer-inline", 0, NULL, OPT_ANSWER_INLINE},
                                        {"journal", 1, NULL, OPT_JOURNAL},
                                        {"journal-no-fsync", 0, NULL, OPT_JOURNAL_NO_FSYNC},
                                        {"grace", 1, NULL, OPT_GRACE},
                                        {"log-level", 1, NULL, OPT_LOG_LEVEL},
                                        {"help", 0, NULL, OPT_HELP},
                                        {0}};

static int read_file(const char *path, char **to, struct err *e) {
  auto_str text;
  str_init(&text, SECRET_FILE_MAX);
  int r = file_read(path, SECRET_FILE_MAX, &text, e);
  if (r == 0) {
    mem_free(*to);
    *to = mem_slicedup(str_slice(&text));
  }
  return r;
}

/* First line. */
static int read_token(struct sample *s, const char *path, struct err *e) {
  int r = read_file(path, &s->token, e);
  if (r == 0) {
    s->token[strcspn(s->token, "\r\n")] = 0;
    s->o.token = s->token;
  }
  return r;
}

static int read_secrets(struct sample *s, const char *path, struct err *e) {
  int r = read_file(path, &s->secret_text, e);
  s->o.secret_count = 0;
  for (char *line = s->secret_text; r == 0 && *line;) {
    size_t n = strcspn(line, "\r\n");
    bool last = !line[n];
    line[n] = 0;
    if (n && s->o.secret_count < KELOU_SECRETS_MAX)
      s->secrets[s->o.secret_count++] = line;
    line += n + !last;
  }
  s->o.secrets = s->secrets;
  return r;
}

static int number(const char *text, int *to, struct err *e) {
  int64_t v;
  int r = parse_i64(slice_of(text), 0, INT32_MAX, &v, e);
  if (r >= 0)
    *to = (int)v;
  return r < 0 ? r : 0;
}

/* "127.0.0.1:8400", "[::1]:8400" */
static int read_listen(struct sample *s, const char *text, struct err *e) {
  const char *colon = strrchr(text, ':');
  if (!colon)
    return err_set(e, ERR_INVALID, "expected address:port");
  size_t n = (size_t)(colon - text);
  bool brackets = n >= 2 && text[0] == '[' && text[n - 1] == ']';
  mem_free(s->address);
  s->address = mem_slicedup(brackets ? slice_n(text + 1, n - 2) : slice_n(text, n));
  s->o.listen_address = s->address;
  return number(colon + 1, &s->o.listen_port, e);
}

static int set_more(struct sample *s, int opt, const char *v, struct err *e) {
  static const char *const levels[] = {"debug", "info", "warn", "error", NULL};
  int level;
  switch (opt) {
  case OPT_ALLOW: return allowed_add(&s->allowed, slice_of(v), true, e);
  case OPT_ALLOW_FIXED: return allowed_add(&s->allowed, slice_of(v), false, e);
  case OPT_ALLOW_FILE: return allowed_read(&s->allowed, v, e);
  case OPT_HTTP_NETWORKS: s->networks = slice_of(v); return 0;
  case OPT_ANSWER_INLINE: s->o.answer_inline = 1; return 0;
  case OPT_JOURNAL: s->o.journal = v; return 0;
  case OPT_JOURNAL_NO_FSYNC: s->o.journal_fsync = 0; return 0;
  case OPT_GRACE: return duration_parse(slice_of(v), 0, USEC_PER_DAY, &s->grace, e);
  case OPT_HEARTBEAT: return duration_parse(slice_of(v), USEC_PER_MS, USEC_PER_HOUR, &s->o.heartbeat, e);
  default: break;
  }
  int r = parse_enum(slice_of(v), levels, &level, e);
  if (r >= 0)
    s->level = (enum log_level)level;
  return r < 0 ? r : 0;
}

static int set(struct sample *s, int opt, const char *v, struct err *e) {
  switch (opt) {
  case OPT_SERVER: s->o.server = v; return 0;
  case OPT_TOKEN_FILE: return read_token(s, v, e);
  case OPT_SECRET_FILE: return read_secrets(s, v, e);
  case OPT_NAMESPACE: s->o.ns = v; return 0;
  case OPT_GROUP: s->o.group = v; return 0;
  case OPT_ID: s->o.id = v; return 0;
  case OPT_LISTEN: return read_listen(s, v, e);
  case OPT_URL: s->o.advertised_url = v; return 0;
  case OPT_SLOTS: return number(v, &s->o.slots, e);
  case OPT_QUEUE: return number(v, &s->o.queue, e);
  case OPT_WEIGHT: return number(v, &s->o.weight, e);
  case OPT_LABELS: s->o.labels = v; return 0;
  case OPT_HANDLERS: s->wanted = slice_of(v); return 0;
  default: return set_more(s, opt, v, e);
  }
}

static int usage(FILE *to, int code) {
  (void)fputs(usage_text, to);
  return code;
}

static int complain(const char *where, const char *text, int code) {
  (void)fprintf(stderr, "kelou-sample-executor: %s%s%s\n", where, *where ? ": " : "", text);
  return code;
}

/* -1: go on, else the exit code. */
static int read_options(struct sample *s, int argc, char **argv) {
  int opt, at = 0;
  while ((opt = getopt_long(argc, argv, "", options, &at)) != -1) {
    struct err e = {0};
    if (opt == OPT_HELP)
      return usage(stdout, EXIT_SUCCESS);
    if (opt == '?')
      return usage(stderr, EXIT_USAGE);
    if (set(s, opt, optarg, &e) < 0) {
      char where[64];
      (void)snprintf(where, sizeof where, "--%s", options[at].name);
      return complain(where, e.text, EXIT_USAGE);
    }
  }
  return optind < argc ? usage(stderr, EXIT_USAGE) : -1;
}

/* ---------------------------------------------------------------- handlers */

static bool listed(struct slice list, const char *name) {
  if (!list.n)
    return true;
  while (list.n)
    if (slice_eqz(slice_trim(slice_cut(list, ',', &list)), name))
      return true;
  return false;
}

static int choose_handlers(struct sample *s, struct err *e) {
  const struct kelou_handler all[HANDLERS] = {{"echo", do_echo, NULL, KELOU_INLINE},
                                              {"sleep", do_sleep, NULL, 0},
                                              {"fail", do_fail, NULL, 0},
                                              {"shell", do_shell, &s->allowed, 0},
                                              {"http", do_http, NULL, 0}};
  size_t n = 0, wanted = 0;
  for (size_t i = 0; i < HANDLERS; i++)
    if (listed(s->wanted, all[i].name))
      s->handlers[n++] = all[i];
  for (struct slice rest = s->wanted; rest.n; wanted++)
    (void)slice_cut(rest, ',', &rest);
  if (s->wanted.n && wanted != n)
    return err_set(e, ERR_INVALID, "--handlers: expected some of echo,sleep,fail,shell,http");
  s->o.handlers = s->handlers;
  s->o.handler_count = n;
  int r = listed(s->wanted, "http") ? caller_new(s->networks, &s->caller, e) : 0;
  for (size_t i = 0; i < n; i++)
    if (s->handlers[i].run == do_http)
      s->handlers[i].user = s->caller;
  return r;
}

/* ---------------------------------------------------------------- life */

static void on_log(void *arg, enum kelou_level level, const char *line) {
  static const enum log_level levels[] = {LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR};
  (void)arg;
  log_at(levels[level], line);
}

/* A signal that came within `ms`, or 0. */
static int signal_within(const sigset_t *set, int ms) {
  struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
  int got = sigtimedwait(set, NULL, &t);
  return got > 0 ? got : 0;
}

/* Everything that runs may end within the grace, unless a second signal comes. */
static bool drain(const struct sample *s, struct kelou_executor *e, const sigset_t *set) {
  usec_t now = clock_system.mono(&clock_system), until = now + s->grace;
  int r = KELOU_ETIMEDOUT;
  for (; r && now < until && !signal_within(set, 0); now = clock_system.mono(&clock_system))
    r = kelou_drain(e, until - now < 200 * USEC_PER_MS ? until - now : 200 * USEC_PER_MS);
  return r == 0;
}

static int serve(struct sample *s, const sigset_t *set) {
  struct kelou_executor *e = NULL;
  char why[256];
  bool told = false;
  int got = 0;
  s->o.log = on_log;
  if (kelou_start(&s->o, &e, why, sizeof why) < 0)
    return complain("", why, EXIT_FAILURE);
  while (!got) {
    if (!told && kelou_wait_registered(e, 100 * USEC_PER_MS) == 0) {
      told = true;
      (void)printf("registered executor=%s port=%d\n", kelou_id(e), kelou_port(e));
      (void)fflush(stdout);
    }
    got = signal_within(set, told ? 60000 : 0);
  }
  bool clean = drain(s, e, set);
  kelou_stop(&e);
  return clean ? EXIT_SUCCESS : complain("", "not everything could be finished and reported", EXIT_FAILURE);
}

static int run(struct sample *s) {
  struct err e = {0};
  sigset_t set;
  (void)sigemptyset(&set);
  (void)sigaddset(&set, SIGTERM);
  (void)sigaddset(&set, SIGINT);
  (void)pthread_sigmask(SIG_BLOCK, &set, NULL); /* taken by sigtimedwait */
  struct log_options log = {.level = s->level, .format = LOG_LOGFMT, .clock = &clock_system};
  if (log_open(&log, &e) < 0 || choose_handlers(s, &e) < 0)
    return complain("", e.text, EXIT_USAGE);
  return serve(s, &set);
}

int main(int argc, char **argv) {
  struct sample s = {.networks = SLICE("public"), .grace = 30 * USEC_PER_SEC, .level = LOG_INFO};
  kelou_options_init(&s.o);
  s.o.version = KELOU_SDK_VERSION;
  int code = read_options(&s, argc, argv);
  if (code < 0)
    code = run(&s);
  caller_free(&s.caller);
  allowed_free(&s.allowed);
  mem_free(s.token);
  mem_free(s.secret_text);
  mem_free(s.address);
  return code;
}
