/* Waiting for the end of a run: run wait, task trigger --wait, run retry --wait. */
#include "cli/client.h"
#include "cli/output.h"
#include "cli/words.h"
#include "core/model.h"
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define POLL_FIRST  (50 * USEC_PER_MS)
#define POLL_LAST   (1 * USEC_PER_SEC) /* each wait is longer by half, up to this */
#define APPEARS_MAX (5 * USEC_PER_SEC) /* a run that was just asked for can be read within this */

struct waiter {
  const struct invocation *given;
  struct client *client;
  const char *id;
  usec_t timeout, deadline, appears_by; /* mono */
  char shown[48];                       /* the state last said on a terminal */
};

static usec_t now_mono(void) { return clock_system.mono(&clock_system); }

static void pause_for(usec_t d) {
  struct timespec t = {.tv_sec = d / USEC_PER_SEC, .tv_nsec = d % USEC_PER_SEC * 1000};
  (void)nanosleep(&t, NULL); /* a signal only makes the next look earlier */
}

static void show_progress(struct waiter *w, const char *state) {
  if (!isatty(STDERR_FILENO) || strcmp(w->shown, state) == 0)
    return;
  (void)text_copy(w->shown, sizeof w->shown, slice_of(state)); /* a cut word is said again, no more */
  words_complain(SAY_waiting, w->id, state);
}

static bool has_ended(const char *state) {
  static const enum run_state ends[] = {RUN_SUCCESS, RUN_FAIL, RUN_CANCELLED, RUN_SKIPPED};
  for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
    if (strcmp(state, run_state_names[ends[i]]) == 0)
      return true;
  return false;
}

static int say_timeout(const struct waiter *w) {
  char text[TIME_TEXT_MAX];
  words_complain(SAY_wait_timeout, w->id, duration_format(w->timeout, text));
  return err_exit(ERR_TIMEOUT);
}

static int finish(const struct waiter *w, const json_t *run, const char *state) {
  int code = output_show(w->given, run);
  if (code || strcmp(state, run_state_names[RUN_SUCCESS]) == 0)
    return code;
  words_complain(SAY_run_failed, w->id, state);
  return EXIT_RUN;
}

/* Look once. -1: not ended yet; else the exit code. */
static int look(struct waiter *w, const struct request *r) {
  auto_answer a = {0};
  usec_t now = now_mono(), left = w->deadline - now;
  int code = client_call(w->client, r, left < CALL_TIMEOUT_DEFAULT ? left : CALL_TIMEOUT_DEFAULT, &a);
  if (code)
    return code;
  if (a.status == 404 && now < w->appears_by)
    return -1;
  if (a.status >= 400)
    return problem_say(w->client, w->given->verb, &a);
  const char *state = json_string_value(json_object_get(a.body, "state"));
  state = state ? state : "";
  show_progress(w, state);
  return has_ended(state) ? finish(w, a.body, state) : -1;
}

static int wait_for(const struct invocation *given, struct client *c, const char *id) {
  usec_t timeout = given->timeout ? given->timeout : WAIT_TIMEOUT_DEFAULT, begin = now_mono(),
         pause = POLL_FIRST;
  struct waiter w = {given, c, id, timeout, begin + timeout, begin + APPEARS_MAX, ""};
  auto_request r = {0};
  request_get("/api/v1/runs/", &r);
  request_encode(&r.target, slice_of(id));
  for (;;) {
    int code = look(&w, &r);
    usec_t left = w.deadline - now_mono();
    if (code >= 0)
      return code;
    if (left <= 0)
      return say_timeout(&w);
    pause_for(pause < left ? pause : left);
    if (now_mono() >= w.deadline)
      return say_timeout(&w);
    pause += pause / 2;
    pause = pause < POLL_LAST ? pause : POLL_LAST;
  }
}

int wait_run(const struct invocation *given) {
  struct client *c = NULL;
  int code = client_open(given, &c);
  if (code == 0)
    code = wait_for(given, c, given->args[0]);
  client_close(&c);
  return code;
}

static int make_and_wait(const struct invocation *given, struct client *c, const struct request *r) {
  auto_answer a = {0};
  int code = client_call(c, r, CALL_TIMEOUT_DEFAULT, &a);
  if (code)
    return code;
  if (a.status >= 400)
    return problem_say(c, given->verb, &a);
  const char *id = json_string_value(json_object_get(a.body, "run_id"));
  struct invocation shown = *given; /* what is shown is the run, not what was made */
  struct verb v = *given->verb;
  v.shape = &command_shapes[SHAPE_run];
  shown.verb = &v;
  return wait_for(&shown, c, id ? id : "");
}

int wait_made(const struct invocation *given) {
  if (!given->values[OPT_wait])
    return cli_call(given);
  struct client *c = NULL;
  auto_request r = {0};
  int code = request_build(given, &r);
  if (code == 0)
    code = client_open(given, &c);
  if (code == 0)
    code = make_and_wait(given, c, &r);
  client_close(&c);
  return code;
}
