/* node drain: until the node owns no shards. */
#include "cli/client.h"
#include "cli/output.h"
#include "cli/words.h"
#include <inttypes.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static const usec_t POLL = 100 * USEC_PER_MS;

static usec_t now_mono(void) { return clock_system.mono(&clock_system); }

static const char *shards_of(const json_t *node, char buf[24]) {
  (void)snprintf(buf, 24, "%" JSON_INTEGER_FORMAT, json_integer_value(json_object_get(node, "shards")));
  return buf;
}

/* On a terminal: each number once. */
static void show_progress(const char *id, const char *left, char shown[24]) {
  if (!isatty(STDERR_FILENO) || strcmp(shown, left) == 0)
    return;
  (void)text_copy(shown, 24, slice_of(left)); /* as long as the other */
  words_complain(SAY_drain_waiting, id, left);
}

static int wait_for(const struct invocation *given, struct client *c, const struct request *look) {
  usec_t end = now_mono() + (given->timeout ? given->timeout : WAIT_TIMEOUT_DEFAULT);
  char left[24], shown[24] = "";
  for (;;) {
    auto_json *node = NULL;
    int code = call_once(c, given, look, &node);
    if (code)
      return code;
    show_progress(given->args[0], shards_of(node, left), shown);
    if (strcmp(left, "0") == 0)
      return output_show(given, node);
    if (now_mono() >= end) {
      words_complain(SAY_drain_timeout, given->args[0], left);
      return err_exit(ERR_TIMEOUT);
    }
    (void)nanosleep(&(struct timespec){.tv_nsec = POLL * 1000}, NULL); /* a signal: looks earlier */
  }
}

int node_drain(const struct invocation *given) {
  if (given->values[OPT_no_wait])
    return cli_call(given);
  struct client *c = NULL;
  auto_request drain = {0}, look = {0};
  auto_json *node = NULL;
  int code = request_build(given, &drain);
  if (code == 0)
    code = client_open(given, &c);
  if (code == 0)
    code = call_once(c, given, &drain, &node);
  if (code == 0) {
    request_get("/api/v1/nodes/", &look);
    request_encode(&look.target, slice_of(given->args[0]));
    code = wait_for(given, c, &look);
  }
  client_close(&c);
  return code;
}
