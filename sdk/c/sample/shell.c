/* Programs from an allow-list: no shell, a process group of their own, output kept as its tail. */
#include "sample.h"
#include "base/file.h"
#include "base/mem.h"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
  ARGS_MAX = 64,
  ARG_BYTES_MAX = 4096,
  LIST_BYTES_MAX = 65536,
  TAIL_BYTES = 16384,
  LINE_BYTES = 4096, /* longer ones are logged in pieces */
  RESULT_MAX = 16 * TAIL_BYTES,
  ENV_MAX = 16
};
static const usec_t TIMEOUT_DEFAULT = 5 * USEC_PER_MIN, TERM_TO_KILL = 2 * USEC_PER_SEC;

struct allowed {
  char *name;
  char *argv[ARGS_MAX + 1]; /* the program first */
  int argc;
  bool more;
  struct allowed *next;
};

/* ---------------------------------------------------------------- the list */

static void one_free(struct allowed *a) {
  for (int i = 0; i < a->argc; i++)
    mem_free(a->argv[i]);
  mem_free(a->name);
  mem_free(a);
}

void allowed_free(struct allowed **list) {
  while (*list) {
    struct allowed *a = *list;
    *list = a->next;
    one_free(a);
  }
}

int allowed_add(struct allowed **list, struct slice text, bool more, struct err *e) {
  struct slice rest, name = slice_trim(slice_cut(text, '=', &rest));
  struct allowed *a = mem_zalloc(sizeof *a);
  a->name = mem_slicedup(name);
  a->more = more;
  while (rest.n && a->argc < ARGS_MAX) {
    struct slice word = slice_trim(slice_cut(rest, ' ', &rest));
    if (word.n)
      a->argv[a->argc++] = mem_slicedup(word);
  }
  if (!name.n || a->argc == 0 || a->argv[0][0] != '/' || rest.n) {
    one_free(a);
    return err_set(e, ERR_INVALID, "\"%.*s\": expected name=/path/to/program and at most %d words",
                   SLICE_FMT(text), ARGS_MAX);
  }
  a->next = *list;
  *list = a;
  return 0;
}

int allowed_read(struct allowed **list, const char *path, struct err *e) {
  auto_str text;
  str_init(&text, LIST_BYTES_MAX);
  int r = file_read(path, LIST_BYTES_MAX, &text, e);
  for (struct slice rest = str_slice(&text); r == 0 && rest.n;) {
    struct slice line = slice_trim(slice_cut(rest, '\n', &rest));
    if (line.n && line.p[0] != '#')
      r = allowed_add(list, line, true, e);
  }
  return r;
}

static struct allowed *allowed_find(struct allowed *list, struct slice name) {
  for (; list; list = list->next)
    if (slice_eqz(name, list->name))
      return list;
  return NULL;
}

/* ---------------------------------------------------------------- what is asked for */

struct command {
  const struct allowed *allowed;
  char *argv[2 * ARGS_MAX + 1]; /* borrowed */
  usec_t timeout;
  char numbers[4][64]; /* texts of `env` */
  char run_id[128];
  char *env[ENV_MAX];
};

static int add_args(const json_t *args, struct command *c, int argc, struct err *e) {
  size_t n = args ? json_array_size(args) : 0;
  if (args && !json_is_null(args) && !json_is_array(args))
    return err_field(e, ERR_INVALID, "/args", "expected a list of texts");
  if (n && !c->allowed->more)
    return err_field(e, ERR_INVALID, "/args", "this command takes none");
  if (n > ARGS_MAX)
    return err_field(e, ERR_INVALID, "/args", "expected at most %d", ARGS_MAX);
  for (size_t i = 0; i < n; i++) {
    const json_t *one = json_array_get(args, i);
    if (!json_is_string(one) || json_string_length(one) > ARG_BYTES_MAX)
      return err_field(e, ERR_INVALID, "/args", "expected texts of at most %d bytes", ARG_BYTES_MAX);
    c->argv[argc++] = (char *)(uintptr_t)json_string_value(one); /* execve takes it so and does not write */
  }
  return 0;
}

static int read_command(const json_t *doc, struct allowed *list, struct command *c, struct err *e) {
  static const char *const keys[] = {"command", "args", "timeout", NULL};
  struct slice name = {0};
  c->timeout = TIMEOUT_DEFAULT;
  int r = json_check_keys(doc, keys, e);
  if (r >= 0)
    r = json_get_duration(doc, "timeout", 1, USEC_PER_DAY, &c->timeout, e);
  if (r >= 0 && (r = json_get_slice(doc, "command", 128, &name, e)) == 0)
    r = err_field(e, ERR_MISSING, "/command", "expected the name of an allowed command");
  if (r < 0)
    return r;
  c->allowed = allowed_find(list, name);
  if (!c->allowed)
    return err_set(e, ERR_FORBIDDEN, "the command \"%.*s\" is not on the allow-list", SLICE_FMT(name));
  for (int i = 0; i < c->allowed->argc; i++)
    c->argv[i] = c->allowed->argv[i];
  return add_args(json_object_get(doc, "args"), c, c->allowed->argc, e);
}

/* Little of our own environment, and what the run is. */
static void make_env(const struct kelou_run *r, struct command *c) {
  static const char *const kept[] = {"PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"};
  int n = 0;
  for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
    char *value = getenv(kept[i]);
    if (value)
      c->env[n++] = value - strlen(kept[i]) - 1; /* "NAME=value" as it stands in environ */
  }
  (void)snprintf(c->run_id, sizeof c->run_id, "KELOU_RUN_ID=%s", kelou_run_id(r));
  (void)snprintf(c->numbers[0], sizeof c->numbers[0], "KELOU_ATTEMPT=%d", kelou_attempt(r));
  (void)snprintf(c->numbers[1], sizeof c->numbers[1], "KELOU_FENCE=%lld", (long long)kelou_fence(r));
  (void)snprintf(c->numbers[2], sizeof c->numbers[2], "KELOU_PART_INDEX=%d", kelou_part_index(r));
  (void)snprintf(c->numbers[3], sizeof c->numbers[3], "KELOU_PART_TOTAL=%d", kelou_part_total(r));
  c->env[n++] = c->run_id;
  for (size_t i = 0; i < 4; i++)
    c->env[n++] = c->numbers[i];
  c->env[n] = NULL;
}

/* ---------------------------------------------------------------- the process */

struct tail { /* the last bytes of an output, and its line that has not ended */
  int fd;
  enum kelou_level level; /* of its lines in the run's log */
  size_t n, line_n;
  bool cut;
  char p[2 * TAIL_BYTES], line[LINE_BYTES];
};

struct child {
  pid_t pid;
  int pidfd, status;
  bool ended, asked; /* asked: SIGTERM was sent */
  const char *why;   /* TIMEOUT or CANCELLED */
  usec_t kill_at;
  struct tail out, err;
};

static usec_t now(void) { return clock_system.mono(&clock_system); }

static void log_line(struct kelou_run *r, struct tail *t) {
  if (t->line_n)
    kelou_run_log_text(r, t->level, t->line, t->line_n);
  t->line_n = 0;
}

static void log_output(struct kelou_run *r, struct tail *t, const char *p, size_t n) {
  for (size_t i = 0; i < n; i++) {
    t->line[t->line_n++] = p[i];
    if (p[i] == '\n' || t->line_n == sizeof t->line)
      log_line(r, t);
  }
}

/* False at the end of the output. */
static bool tail_read(struct kelou_run *r, struct tail *t) {
  if (t->n > TAIL_BYTES) {
    memmove(t->p, t->p + t->n - TAIL_BYTES, TAIL_BYTES);
    t->n = TAIL_BYTES;
    t->cut = true;
  }
  ssize_t n = read(t->fd, t->p + t->n, sizeof t->p - t->n);
  if (n > 0) {
    log_output(r, t, t->p + t->n, (size_t)n);
    t->n += (size_t)n;
  }
  return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

static struct slice tail_text(const struct tail *t) {
  size_t n = t->n > TAIL_BYTES ? TAIL_BYTES : t->n;
  return slice_n(t->p + t->n - n, n);
}

static int spawn(const struct command *c, const int out[2], const int err[2], pid_t *ret) {
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attr;
  sigset_t none, all;
  (void)sigemptyset(&none);
  (void)sigfillset(&all);
  (void)posix_spawn_file_actions_init(
      &files); /* on Linux these only fail without memory, which ends in posix_spawn */
  (void)posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
  (void)posix_spawn_file_actions_adddup2(&files, out[1], 1);
  (void)posix_spawn_file_actions_adddup2(&files, err[1], 2);
  (void)posix_spawnattr_init(&attr);
  (void)posix_spawnattr_setpgroup(&attr, 0);
  (void)posix_spawnattr_setsigmask(&attr, &none);
  (void)posix_spawnattr_setsigdefault(&attr, &all);
  (void)posix_spawnattr_setflags(&attr,
                                 POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  int r = posix_spawn(ret, c->argv[0], &files, &attr, c->argv, c->env);
  (void)posix_spawnattr_destroy(&attr);
  (void)posix_spawn_file_actions_destroy(&files);
  return -r;
}

static void close_fd(int fd) {
  if (fd >= 0)
    (void)close(fd); /* pipes: nothing is lost */
}

static int start(const struct command *c, struct child *ch) {
  int out[2] = {-1, -1}, err[2] = {-1, -1};
  int r = 0;
  if (pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0)
    r = -errno;
  if (r == 0)
    r = spawn(c, out, err, &ch->pid);
  close_fd(out[1]);
  close_fd(err[1]);
  ch->out.fd = out[0];
  ch->err.fd = err[0];
  if (r < 0)
    return r;
  (void)fcntl(out[0], F_SETFL, O_NONBLOCK);
  (void)fcntl(err[0], F_SETFL, O_NONBLOCK);
  ch->pidfd = (int)syscall(SYS_pidfd_open, ch->pid, 0);
  return 0;
}

static void ask_to_end(struct child *ch, const char *why) {
  ch->why = why;
  ch->asked = true;
  ch->kill_at = now() + TERM_TO_KILL;
  (void)kill(-ch->pid, SIGTERM); /* the group may have gone */
}

static bool reap(struct child *ch) {
  if (!ch->ended && waitpid(ch->pid, &ch->status, WNOHANG) == ch->pid)
    ch->ended = true;
  return ch->ended;
}

enum { OUT, ERR, END, CANCEL, WATCHED, LAST_READS = 64, LOOK_MS = 50, WAIT_MS_MAX = 60000 };

/* Take what has come; an output that has ended is not looked at again. */
static void take_output(struct kelou_run *r, struct child *ch, struct pollfd p[static 2]) {
  struct tail *tails[] = {&ch->out, &ch->err};
  for (int i = OUT; i <= ERR; i++)
    if (p[i].fd >= 0 && p[i].revents && !tail_read(r, tails[i]))
      p[i].fd = -1;
}

/* What is due by now: tell it to end, or end it. False: nothing yet. */
static bool act(struct kelou_run *r, struct child *ch, usec_t deadline) {
  usec_t t = now();
  if (!ch->asked && kelou_cancelled(r))
    ask_to_end(ch, "CANCELLED");
  else if (!ch->asked && t >= deadline)
    ask_to_end(ch, "TIMEOUT");
  else if (ch->asked && t >= ch->kill_at) {
    (void)kill(-ch->pid, SIGKILL); /* the group may have gone */
    ch->kill_at = t + TERM_TO_KILL;
  } else
    return false;
  return true;
}

/* Until the program has ended; its children that still hold its output are not waited for. */
static void watch(struct kelou_run *r, struct child *ch, usec_t deadline) {
  struct pollfd p[WATCHED] = {[OUT] = {.fd = ch->out.fd, .events = POLLIN},
                              [ERR] = {.fd = ch->err.fd, .events = POLLIN},
                              [END] = {.fd = ch->pidfd, .events = POLLIN},
                              [CANCEL] = {.fd = kelou_cancel_fd(r), .events = POLLIN}};
  usec_t most = p[END].fd >= 0 && p[CANCEL].fd >= 0 ? WAIT_MS_MAX : LOOK_MS; /* else look now and then */
  while (!reap(ch)) {
    if (act(r, ch, deadline))
      continue;
    if (ch->asked)
      p[CANCEL].fd = -1; /* it stays readable */
    usec_t wait = ((ch->asked ? ch->kill_at : deadline) - now()) / USEC_PER_MS + 1;
    (void)poll(p, WATCHED,
               (int)(wait < 0      ? 0
                     : wait > most ? most
                                   : wait)); /* what woke it is looked at anew */
    take_output(r, ch, p);
  }
  for (int i = 0; i < LAST_READS && poll(p, ERR + 1, 0) > 0; i++)
    take_output(r, ch, p); /* what it wrote last: bounded, others may go on writing */
  log_line(r, &ch->out);
  log_line(r, &ch->err);
  if (ch->asked)
    (void)kill(-ch->pid, SIGKILL); /* what is left of the group */
}

/* ---------------------------------------------------------------- how it went */

static void add_output(struct str *s, const char *name, const struct tail *t) {
  str_addf(s, ",\"%s\":\"", name);
  str_add_json(s, tail_text(t));
  str_addf(s, "\",\"%s_cut\":%s", name, t->cut || t->n > TAIL_BYTES ? "true" : "false");
}

static void succeed(struct kelou_run *r, const struct child *ch, usec_t took) {
  auto_str s;
  str_init(&s, RESULT_MAX);
  str_addf(&s, "{\"exit_code\":0,\"took_ms\":%lld", (long long)(took / USEC_PER_MS));
  add_output(&s, "stdout", &ch->out);
  add_output(&s, "stderr", &ch->err);
  str_addc(&s, '}');
  (void)kelou_succeed(r, s.p); /* it is JSON */
}

static void say(struct kelou_run *r, const struct child *ch, usec_t took) {
  char message[160];
  const struct tail *output = ch->err.n ? &ch->err : &ch->out;
  auto_free char *detail = mem_slicedup(tail_text(output));
  if (ch->why && strcmp(ch->why, "CANCELLED") == 0) {
    kelou_stopped(r);
  } else if (ch->why) {
    (void)snprintf(message, sizeof message, "killed after %lld ms", (long long)(took / USEC_PER_MS));
    kelou_fail(r, "TIMEOUT", message, detail);
  } else if (WIFSIGNALED(ch->status)) {
    (void)snprintf(message, sizeof message, "ended by signal %d", WTERMSIG(ch->status));
    kelou_fail(r, "SIGNAL", message, detail);
  } else if (WEXITSTATUS(ch->status) != 0) {
    (void)snprintf(message, sizeof message, "exit code %d", WEXITSTATUS(ch->status));
    kelou_fail(r, "EXIT", message, detail);
  } else {
    succeed(r, ch, took);
  }
}

void do_shell(struct kelou_run *r, void *list) {
  struct err e = {0};
  struct command c = {0};
  auto_json *doc = payload_object(r);
  if (!doc)
    return;
  int code = read_command(doc, *(struct allowed **)list, &c, &e);
  if (code == ERR_FORBIDDEN) {
    kelou_fail(r, "NOT_ALLOWED", e.text, NULL);
    return;
  }
  if (code < 0) {
    bad_payload(r, &e);
    return;
  }
  make_env(r, &c);
  auto_free struct child *ch = mem_zalloc(sizeof *ch);
  ch->pidfd = -1;
  ch->out.level = KELOU_INFO;
  ch->err.level = KELOU_WARN;
  usec_t began = now();
  code = start(&c, ch);
  if (code < 0) {
    kelou_fail(r, "NOT_STARTED", strerror(-code), NULL);
  } else {
    watch(r, ch, began + c.timeout);
    say(r, ch, now() - began);
  }
  close_fd(ch->out.fd);
  close_fd(ch->err.fd);
  close_fd(ch->pidfd);
}
