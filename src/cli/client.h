#pragma once
/* One call of the centre's API after the other; blocks. */
#include "base/err.h"
#include "base/json.h"
#include "base/time.h"
#include "cli/commands.h"
#include "net/http_server.h"

#define SERVER_DEFAULT       "http://127.0.0.1:8390"
#define CALL_TIMEOUT_DEFAULT (30 * USEC_PER_SEC)
#define WAIT_TIMEOUT_DEFAULT USEC_PER_HOUR
#define ANSWER_MAX           ((size_t)64 * 1024 * 1024)
#define TOKEN_BYTES_MAX      4096

struct client;
/* The server and the token that the command line and the environment name. On failure it has been said why; returns
 * the exit code, else 0. */
int client_open(const struct invocation *given, struct client **ret);
void client_close(struct client **c);
const char *client_server(const struct client *c); /* its URL, for messages */

struct request {
  const char *method;
  struct str target; /* path and query */
  json_t *body;      /* owned; NULL: none */
  struct http_header headers[4];
  size_t header_count;
  char idempotency_key[64]; /* "" = none */
  char if_match[24];
};
void request_done(struct request *r);
#define auto_request __attribute__((cleanup(request_done))) struct request

struct answer {
  int status;
  json_t *body; /* owned; NULL: none */
};
void answer_done(struct answer *a);
#define auto_answer __attribute__((cleanup(answer_done))) struct answer

/* Make the call and wait at most `timeout` for the whole answer. Problems are answers. Without one it has been said why;
 * returns the exit code, else 0. */
int client_call(struct client *c, const struct request *r, usec_t timeout, struct answer *ret);

/* Say what the problem in an answer (status ≥ 400) is; returns the exit code. `v` (may be NULL) tells which options filled in
 * the fields that it names. */
int problem_say(const struct client *c, const struct verb *v, const struct answer *a);

/* The parts of cli_call: one call; the pages of a list as --limit and --all ask, {"items", "next_cursor"} in all. On failure it has been
 * said why; returns the exit code, else 0. *ret: a new reference. */
usec_t call_timeout(const struct invocation *given);
int call_once(struct client *c, const struct invocation *given, const struct request *r, json_t **ret);
int call_pages(struct client *c, const struct invocation *given, struct request *r, json_t **ret);
/* The exit code of a problem's stable code. */
int problem_exit(const struct answer *a);
/* The place in a problem, as a JSON pointer ("": none) and a column inside the value (0: none), and what is wrong there. */
const char *problem_pointer(const struct answer *a);
int64_t problem_column(const struct answer *a);
const char *problem_detail(const struct answer *a);

/* The request of a command. On failure it has been said why; returns the exit code, else 0. */
int request_build(const struct invocation *given, struct request *ret);
/* Just a path. */
void request_get(const char *path, struct request *ret);
/* Append percent-encoded: nothing but unreserved characters stays as it is. */
void request_encode(struct str *out, struct slice text);
