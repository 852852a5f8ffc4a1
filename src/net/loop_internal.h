#pragma once
/* Private to net: what the connection layer needs of a loop. */
#include "net/loop.h"
#include <uv.h>

#define LOOP_READ_BYTES 65536 /* one read(2) at most; the buffer is shared by all connections of the loop */

uv_loop_t *loop_uv(struct loop *l);
char *loop_read_buffer(struct loop *l); /* LOOP_READ_BYTES; valid until the next read */
/* Run fn(arg) on the loop thread and wait for it. Any thread but, of course, a loop that is not running. */
void loop_call(struct loop *l, void (*fn)(void *), void *arg);
