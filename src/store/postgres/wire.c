#include "store/postgres/pg.h"
#include <endian.h>

#define ARGS_KEEP_BYTES ((size_t)4 << 20) /* a larger buffer is given back after its statement */

static char *room(struct pgw_args *a, size_t bytes) {
  if (a->n + bytes >= a->cap) {
    a->cap = a->cap ? a->cap : 4096;
    while (a->n + bytes >= a->cap)
      a->cap *= 2;
    a->p = mem_grow(a->p, a->cap, 1);
  }
  char *p = a->p + a->n;
  a->n += bytes;
  return p;
}
static inline char *set4(char *p, int32_t v) {
  uint32_t be = htobe32((uint32_t)v);
  memcpy(p, &be, 4);
  return p + 4;
}
static inline char *set8(char *p, int64_t v) {
  uint64_t be = htobe64((uint64_t)v);
  memcpy(p, &be, 8);
  return p + 8;
}
static void open_arg(struct pgw_args *a) {
  if (a->count >= PG_ARGS_MAX)
    mem_exhausted();
  a->at[a->count] = a->n;
}
static void close_arg(struct pgw_args *a) {
  a->length[a->count] = (int)(a->n - a->at[a->count]);
  a->count++;
}

void pgw_clear(struct pgw_args *a) {
  if (a->cap > ARGS_KEEP_BYTES)
    pgw_done(a);
  a->n = 0;
  a->count = 0;
}
void pgw_done(struct pgw_args *a) {
  mem_free(a->p);
  *a = (struct pgw_args){0};
}
void pgw_i8(struct pgw_args *a, int64_t v) {
  open_arg(a);
  set8(room(a, 8), v);
  close_arg(a);
}
void pgw_i4(struct pgw_args *a, int32_t v) {
  open_arg(a);
  set4(room(a, 4), v);
  close_arg(a);
}
void pgw_bool(struct pgw_args *a, bool v) {
  open_arg(a);
  *room(a, 1) = v;
  close_arg(a);
}
void pgw_bytes(struct pgw_args *a, const void *p, size_t n) {
  open_arg(a);
  memcpy(room(a, n), n ? p : "", n);
  close_arg(a);
}
void pgw_text0(struct pgw_args *a, struct slice v) { pgw_bytes(a, v.p, v.n); }
void pgw_text(struct pgw_args *a, struct slice v) {
  pgw_text0(a, v);
  if (!v.p)
    a->length[a->count - 1] = -1;
}

void pgw_array(struct pgw_args *a, uint32_t element_oid, size_t count) {
  open_arg(a);
  char *p = room(a, 20);
  p = set4(p, 1); /* dimensions */
  p = set4(p, 1); /* may hold NULLs */
  p = set4(p, (int32_t)element_oid);
  p = set4(p, (int32_t)count);
  set4(p, 1); /* lower bound */
}
void pgw_array_end(struct pgw_args *a) { close_arg(a); }
void pgw_el_i8(struct pgw_args *a, int64_t v) { set8(set4(room(a, 12), 8), v); }
void pgw_el_i4(struct pgw_args *a, int32_t v) { set4(set4(room(a, 8), 4), v); }
void pgw_el_text(struct pgw_args *a, struct slice v) {
  char *p = set4(room(a, 4 + v.n), (int32_t)v.n);
  memcpy(p, v.n ? v.p : "", v.n);
}

void pgw_row(struct pgw_args *a, int columns) {
  a->row = a->n;
  set4(room(a, 8) + 4, columns);
}
void pgw_row_end(struct pgw_args *a) { set4(a->p + a->row, (int32_t)(a->n - a->row - 4)); }

static void col_null(struct pgw_args *a, int oid) { set4(set4(room(a, 8), oid), -1); }
void pgw_col_i8(struct pgw_args *a, int64_t v) { set8(set4(set4(room(a, 16), PG_INT8_OID), 8), v); }
void pgw_col_i8z(struct pgw_args *a, int64_t v) {
  if (v)
    pgw_col_i8(a, v);
  else
    col_null(a, PG_INT8_OID);
}
void pgw_col_i4(struct pgw_args *a, int32_t v) { set4(set4(set4(room(a, 12), PG_INT4_OID), 4), v); }
void pgw_col_i2(struct pgw_args *a, int v) {
  char *p = set4(set4(room(a, 10), PG_INT2_OID), 2);
  p[0] = (char)(v >> 8);
  p[1] = (char)v;
}
void pgw_col_text0(struct pgw_args *a, struct slice v) {
  char *p = set4(set4(room(a, 8 + v.n), PG_TEXT_OID), (int32_t)v.n);
  memcpy(p, v.n ? v.p : "", v.n);
}
void pgw_col_text(struct pgw_args *a, struct slice v) {
  if (v.p)
    pgw_col_text0(a, v);
  else
    col_null(a, PG_TEXT_OID);
}
void pgw_col_progress(struct pgw_args *a, double v) {
  int64_t bits;
  memcpy(&bits, &v, 8);
  if (v >= 0)
    set8(set4(set4(room(a, 16), PG_FLOAT8_OID), 8), bits);
  else
    col_null(a, PG_FLOAT8_OID);
}

int64_t pgw_int(const PGresult *r, int row, int col) {
  const char *p = PQgetvalue(r, row, col);
  uint64_t v8;
  uint32_t v4;
  switch (PQgetlength(r, row, col)) {
  case 8: memcpy(&v8, p, 8); return (int64_t)be64toh(v8);
  case 4: memcpy(&v4, p, 4); return (int32_t)be32toh(v4);
  case 2: return (int16_t)((unsigned char)p[0] << 8 | (unsigned char)p[1]);
  case 1: return p[0] != 0;
  default: return 0;
  }
}
int64_t pgw_next_int(struct pgw_cursor *c) {
  int col = c->col++;
  return pgw_int(c->r, c->row, col);
}
bool pgw_next_null(const struct pgw_cursor *c) { return PQgetisnull(c->r, c->row, c->col); }
double pgw_next_progress(struct pgw_cursor *c) {
  double v;
  if (pgw_next_null(c)) {
    c->col++;
    return -1;
  }
  int64_t bits = pgw_next_int(c);
  memcpy(&v, &bits, 8);
  return v;
}
struct slice pgw_next_text(struct pgw_cursor *c) {
  int col = c->col++;
  if (PQgetisnull(c->r, c->row, col))
    return (struct slice){0};
  return arena_slice(c->mem, slice_n(PQgetvalue(c->r, c->row, col), (size_t)PQgetlength(c->r, c->row, col)));
}
