/* kelou run logs: what a run has logged, to its present end or (-f) to the end of the run. Polls; the centre holds nothing for it. */
#include "base/mem.h"
#include "cli/client.h"
#include "cli/output.h"
#include "cli/table.h"
#include "cli/words.h"
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define PAGE_LINES  1000
#define POLL_FIRST  (200 * USEC_PER_MS)
#define POLL_LAST   (2 * USEC_PER_SEC) /* each wait is longer by half, up to this; a new line begins anew */
#define APPEARS_MAX (5 * USEC_PER_SEC) /* a run that was just asked for can be read within this */
#define TEXT_MAX    ((size_t)64 * 1024 * 1024)

struct follower {
  const struct invocation *given;
  struct client *client;
  struct request *request;
  size_t base; /* length of the request's target without what a page adds */
  json_t *cursor;
  bool follow, clean; /* clean: for a terminal */
  bool more, ended, new_rows, any;
  int64_t cut_attempt;         /* the last one of which it has been said that it is cut */
  usec_t deadline, appears_by; /* mono */
};

static volatile sig_atomic_t interrupted;

static void on_signal(int sig) {
  (void)sig;
  interrupted = 1;
}

/* The first one ends the following, a second one the program. */
static void catch_interrupt(void) {
  struct sigaction a = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
  (void)sigemptyset(&a.sa_mask);
  (void)sigaction(SIGINT, &a, NULL); /* fails for no signal that there is */
  (void)sigaction(SIGTERM, &a, NULL);
}

static usec_t now_mono(void) { return clock_system.mono(&clock_system); }

static void pause_for(usec_t d) {
  struct timespec t = {.tv_sec = d / USEC_PER_SEC, .tv_nsec = d % USEC_PER_SEC * 1000};
  (void)nanosleep(&t, NULL); /* a signal ends it */
}

/* ------------------------------------------------------------------ rows */

static const char *text_of(const json_t *row, const char *key) {
  const char *z = json_string_value(json_object_get(row, key));
  return z ? z : "";
}

static int64_t int_of(const json_t *row, const char *key) {
  return json_integer_value(json_object_get(row, key));
}

/* Lines that are not there: said beside the data. */
static void say_range(struct follower *f, enum message m, const json_t *row, const json_t *range) {
  char attempt[24], lines[64];
  (void)snprintf(attempt, sizeof attempt, "%" PRId64, int_of(row, "attempt"));
  (void)snprintf(lines, sizeof lines, "%" PRId64 "-%" PRId64, int_of(range, "from"), int_of(range, "to"));
  if (m == SAY_log_cut) { /* from there on there is nothing */
    if (f->cut_attempt == int_of(row, "attempt"))
      return;
    f->cut_attempt = int_of(row, "attempt");
    (void)snprintf(lines, sizeof lines, "%" PRId64, int_of(range, "from"));
  }
  words_complain(m, attempt, lines);
}

static void add_text(const struct follower *f, struct str *out, const json_t *row) {
  const json_t *text = json_object_get(row, "text");
  struct slice rest = slice_n(json_string_value(text), json_string_length(text));
  if (!f->clean) {
    str_add(out, rest);
    return;
  }
  for (bool first = true; first || rest.p; first = false) { /* its lines stay lines */
    struct slice line = slice_cut(rest, '\n', &rest);
    if (!first)
      str_addc(out, '\n');
    text_clean(out, line);
  }
}

static void add_row(struct follower *f, struct str *out, const json_t *row) {
  const json_t *gap = json_object_get(row, "gap"), *cut = json_object_get(row, "cut");
  if (f->given->output == OUT_JSON) {
    auto_free char *text = json_text(row);
    str_addz(out, text);
    str_addc(out, '\n');
    return;
  }
  if (gap || cut) {
    say_range(f, gap ? SAY_log_gap : SAY_log_cut, row, gap ? gap : cut);
    return;
  }
  if (f->given->output == OUT_WIDE)
    str_addf(out, "%" PRId64 "/%-6" PRId64 " ", int_of(row, "attempt"), int_of(row, "seq"));
  str_addf(out, "%-27s %-5s ", text_of(row, "at"), text_of(row, "level"));
  add_text(f, out, row);
  if (json_object_get(row, "cut_bytes"))
    str_addz(out, " \xe2\x80\xa6");
  str_addc(out, '\n');
}

static int show(struct follower *f, const json_t *page) {
  const json_t *items = json_object_get(page, "items");
  auto_str out;
  str_init(&out, TEXT_MAX);
  for (size_t i = 0; i < json_array_size(items); i++)
    add_row(f, &out, json_array_get(items, i));
  json_t *cursor = json_object_get(page, "next_cursor");
  json_decref(f->cursor);
  f->cursor = json_incref(cursor);
  f->more = json_is_true(json_object_get(page, "more"));
  f->ended = json_is_true(json_object_get(page, "ended"));
  f->new_rows = json_array_size(items) > 0;
  f->any = f->any || f->new_rows;
  return out.n || str_failed(&out) ? print_out(&out) : 0;
}

/* ------------------------------------------------------------------ pages */

static void page_target(struct follower *f) {
  struct str *target = &f->request->target;
  auto_str first;
  str_init(&first, target->max);
  str_add(&first, slice_n(target->p, f->base));
  bool has_query = memchr(first.p, '?', first.n) != NULL;
  str_clear(target);
  str_add(target, str_slice(&first));
  str_addf(target, "%climit=%d", has_query ? '&' : '?', PAGE_LINES);
  if (f->cursor) {
    str_addz(target, "&cursor=");
    request_encode(target, slice_of(json_string_value(f->cursor)));
  }
}

/* -1: go on; else the exit code. */
static int next_page(struct follower *f) {
  auto_answer a = {0};
  page_target(f);
  int code = client_call(f->client, f->request, CALL_TIMEOUT_DEFAULT, &a);
  if (code)
    return code;
  if (a.status == 404 && f->follow && now_mono() < f->appears_by) {
    f->more = f->new_rows = false;
    return -1;
  }
  if (a.status >= 400)
    return problem_say(f->client, f->given->verb, &a);
  code = show(f, a.body);
  return code ? code : -1;
}

static int say_timeout(const struct follower *f) {
  char text[TIME_TEXT_MAX];
  usec_t timeout = f->given->timeout ? f->given->timeout : WAIT_TIMEOUT_DEFAULT;
  words_complain(SAY_wait_timeout, f->given->args[0], duration_format(timeout, text));
  return err_exit(ERR_TIMEOUT);
}

/* Nothing at all, and no more to come: silence would leave it open. Of a part of a log it says nothing. */
static void say_none(const struct follower *f) {
  bool whole = !f->given->values[OPT_of_attempt] && !f->given->values[OPT_since_seq];
  if (whole && f->ended && !f->any)
    words_complain(SAY_log_none, f->given->args[0], NULL);
}

static int read_on(struct follower *f) {
  usec_t pause = POLL_FIRST;
  for (;;) {
    int code = next_page(f);
    if (code >= 0)
      return code;
    if (interrupted)
      return 0;
    if (!f->more && (!f->follow || f->ended)) {
      say_none(f);
      return 0;
    }
    if (f->more)
      continue;
    usec_t left = f->deadline - now_mono();
    if (left <= 0)
      return say_timeout(f);
    pause = f->new_rows ? POLL_FIRST : pause + pause / 2;
    pause = pause < POLL_LAST ? pause : POLL_LAST;
    pause_for(pause < left ? pause : left);
    if (interrupted)
      return 0;
  }
}

int logs_run(const struct invocation *given) {
  if (given->output == OUT_YAML) {
    words_complain(SAY_no_output, output_names[OUT_YAML], NULL);
    return EXIT_USAGE;
  }
  auto_request r = {0};
  struct follower f = {.given = given,
                       .request = &r,
                       .follow = given->values[OPT_follow] != NULL,
                       .clean = isatty(STDOUT_FILENO),
                       .deadline = now_mono() + (given->timeout ? given->timeout : WAIT_TIMEOUT_DEFAULT),
                       .appears_by = now_mono() + APPEARS_MAX};
  if (f.follow)
    catch_interrupt();
  int code = request_build(given, &r);
  f.base = r.target.n;
  if (code == 0)
    code = client_open(given, &f.client);
  if (code == 0)
    code = read_on(&f);
  json_decref(f.cursor);
  client_close(&f.client);
  return code;
}
