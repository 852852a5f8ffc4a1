#pragma once
/* Private to net: looks at the raw head of a request before the parser does, and refuses what two readers could read differently
 * whatever version of the parser is underneath: lines that do not end with CR LF, folded fields, fields without a name, a
 * request line that is not "method SP target SP HTTP/x.y". Takes bytes in any split. Pure. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http_scan {
  size_t bytes;      /* of this head so far, with every space and line end */
  size_t line_bytes; /* of the present line */
  uint8_t spaces;    /* in the request line */
  uint8_t protocol;  /* bytes of "HTTP/" seen in it */
  char last;
  bool cr;    /* the last byte was a CR */
  bool first; /* the request line is over */
  bool done;  /* the head is over */
};

/* Looks at up to `n` bytes and counts those that belong to the head. NULL: good so far; else the reason. */
const char *http_scan(struct http_scan *s, const char *p, size_t n, size_t *ret_used);
