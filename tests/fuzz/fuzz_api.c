/* A request to the API as far as it is only read: first line "METHOD target", then header lines, an empty line, the body. Each refusal
 * names a place and makes a good problem document. */
#include "api/internal.h"
#include "base/json.h"
#include "fuzz.h"

#define HEADERS_MAX 8

static void check_problem(struct call *c, int r) {
  auto_str text;
  auto_json *doc = NULL;
  fuzz_check_error(r, &c->e);
  char first = c->e.field[0];
  assert(!first || first == '/' || first == '?' || first == '@');
  int status = err_http(r);
  assert(status >= 400 && status <= 499);
  str_init(&text, 64 * 1024);
  problem_write(&text, &c->e, status, "0");
  assert(!str_failed(&text) && json_read(str_slice(&text), 64 * 1024, &doc, NULL) == 0);
}

static size_t read_headers(struct slice *rest, struct http_header *headers) {
  size_t n = 0;
  while (rest->n) {
    struct slice tail, value, line = slice_cut(*rest, '\n', &tail), name = slice_cut(line, ':', &value);
    *rest = tail;
    if (!line.n)
      break;
    if (n < HEADERS_MAX)
      headers[n++] = (struct http_header){name, slice_trim(value)};
  }
  return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct api api = {.o.max_body_bytes = 4096, .o.clock = &clock_system, .boot = "00000000"};
  struct http_header headers[HEADERS_MAX];
  struct slice rest, query, target, line = slice_cut(fuzz_slice(data, size), '\n', &rest);
  struct slice method = slice_cut(line, ' ', &target), path = slice_cut(target, '?', &query);
  size_t n = read_headers(&rest, headers);
  struct http_request request = {.method = method,
                                 .path = path,
                                 .query = query,
                                 .headers = headers,
                                 .header_count = n,
                                 .body = rest,
                                 .peer = ""};
  struct call c = {.api = &api, .req = &request};
  struct route_match m = {0};
  int r = route_find(method, path, &m, &c.e);
  if (r >= 0) {
    c.route = m.route;
    r = params_headers(&c);
  }
  if (r >= 0)
    r = params_query(&c);
  if (r >= 0)
    r = params_body(&c);
  uint8_t cursor[CURSOR_DATA_MAX];
  if (r >= 0)
    r = cursor_read(&c, cursor, 24);
  if (r < 0)
    check_problem(&c, r);
  json_decref(c.body);
  mem_free(c.text);
  arena_done(&c.mem);
  return 0;
}
