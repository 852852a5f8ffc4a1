#pragma once
/* Private to the sample executor: its handlers. Each reads the payload, works, and says how it went. */
#include "base/err.h"
#include "base/json.h"
#include "kelou_executor.h"

/* The payload as an object; NULL: it was none, and the run has failed with BAD_PAYLOAD. */
json_t *payload_object(struct kelou_run *r);
void bad_payload(struct kelou_run *r, const struct err *e);

/* simple.c */
void do_echo(struct kelou_run *r, void *user);  /* the payload is the result */
void do_sleep(struct kelou_run *r, void *user); /* {"ms", "steps"}: progress after each step */
void do_fail(struct kelou_run *r,
             void *user); /* {"message", "times"}: the first `times` attempts fail; without it all */

/* shell.c: programs that may be run, by name. Written at start only. */
struct allowed;
/* "name=/path/to/program fixed arguments": spaces part them, there is no quoting. `more`: the payload's come behind. */
int allowed_add(struct allowed **list, struct slice text, bool more, struct err *e);
int allowed_read(struct allowed **list, const char *path,
                 struct err *e); /* a line each; # begins a comment */
void allowed_free(struct allowed **list);
void do_shell(struct kelou_run *r, void *list); /* struct allowed **: {"command", "args", "timeout"} */

/* call.c: calls to allowed networks. */
struct caller;
int caller_new(struct slice networks, struct caller **ret, struct err *e);
void caller_free(struct caller **c);
void do_http(struct kelou_run *r,
             void *caller); /* {"method", "url", "headers", "body", "timeout", "status"} */
