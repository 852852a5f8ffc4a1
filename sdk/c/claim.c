/* Attempts of tasks with exactly_one_start: the centre is asked before the handler is called, until it answers. */
#include "internal.h"
#include "base/rng.h"
#include <inttypes.h>

enum { BODY_MAX = 2048, ANSWER_MAX_BYTES = 4096 };
static const usec_t AGAIN_FIRST = 100 * USEC_PER_MS, AGAIN_MOST = 2 * USEC_PER_SEC;

static char *body_of(const struct kelou_run *r, int64_t incarnation) {
  struct str s;
  str_init(&s, BODY_MAX);
  str_addf(&s, "{\"claims\":[{\"run_id\":\"%s\",\"attempt\":%d,\"fence\":%" PRId64 ",\"executor\":\"", r->id,
           r->attempt, atomic_load(&r->fence));
  str_addz(&s, r->executor->id_json);
  str_addf(&s, "\",\"incarnation\":%" PRId64 "}]}", incarnation);
  return str_take(&s); /* it fits: ids are bounded */
}

/* What the answer says about the one claim; CLAIM_UNKNOWN: ask again. */
static enum claim read_answer(int status, struct slice body) {
  auto_json *doc = NULL;
  if (json_read(body, ANSWER_MAX_BYTES, &doc, NULL) >= 0 && json_is_object(doc)) {
    const json_t *result = json_array_get(json_object_get(doc, "results"), 0);
    const char *said = json_string_value(json_object_get(result, "status"));
    if (said && strcmp(said, "granted") == 0)
      return CLAIM_GRANTED;
    if (said && (strcmp(said, "refused") == 0 || strcmp(said, "forbidden") == 0))
      return CLAIM_REFUSED;
  }
  switch (status) { /* it will never be understood */
  case 400:
  case 404:
  case 405:
  case 413:
  case 422: return CLAIM_REFUSED;
  default: return CLAIM_UNKNOWN;
  }
}

static enum claim ask(struct kelou_run *r, int64_t *incarnation) {
  struct session *s = r->executor->session;
  if (!*incarnation) /* the same name each time, whatever happens to the registration meanwhile */
    *incarnation = session_incarnation(s);
  if (!*incarnation)
    return CLAIM_UNKNOWN; /* not registered now */
  auto_free char *body = body_of(r, *incarnation);
  auto_str answer;
  str_init(&answer, ANSWER_MAX_BYTES);
  int status = session_ask(s, "/api/v1/claims", body, &answer);
  enum claim c = status ? read_answer(status, str_slice(&answer)) : CLAIM_UNKNOWN;
  if (c != CLAIM_GRANTED)
    sdk_log(r->executor, c == CLAIM_REFUSED ? KELOU_WARN : KELOU_DEBUG,
            "run %s attempt %d is not started: the claim %s: status %d: %.*s", r->id, r->attempt,
            c == CLAIM_REFUSED ? "was refused" : "is not decided, asking again", status,
            (int)(answer.n > 300 ? 300 : answer.n), answer.p ? answer.p : "");
  return c;
}

enum claim run_claim(struct kelou_run *r) {
  struct rng rng;
  int64_t incarnation = 0;
  rng_seed(&rng, (uint64_t)sdk_mono() ^ (uint64_t)(uintptr_t)r);
  for (usec_t pause = AGAIN_FIRST;; pause = pause * 2 > AGAIN_MOST ? AGAIN_MOST : pause * 2) {
    if (kelou_cancelled(r))
      return CLAIM_UNKNOWN;
    enum claim c = ask(r, &incarnation);
    if (c != CLAIM_UNKNOWN)
      return c;
    if (sdk_wall() > r->message->deadline) {
      sdk_log(r->executor, KELOU_WARN,
              "run %s attempt %d is not started: its deadline has passed before the centre "
              "answered",
              r->id, r->attempt);
      return CLAIM_UNKNOWN;
    }
    (void)kelou_sleep(r, pause - (usec_t)rng_below(&rng, (uint64_t)pause / 5 + 1));
  }
}
