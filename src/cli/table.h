#pragma once
/* Text for terminals: how wide it is there, and tables of it. */
#include "base/str.h"

/* Columns that valid UTF-8 takes on a terminal: East Asian wide characters two, combining ones none. */
size_t text_width(struct slice text);
/* Append with control characters, direction marks and malformed bytes made harmless: what a server or an
 * executor wrote must not steer a terminal. A line feed becomes "\n", a tab "\t", the others "\u001b" and the like. */
void text_clean(struct str *out, struct slice text);

#define TABLE_COLUMNS_MAX 24
#define TABLE_TEXT_MAX    ((size_t)512 * 1024 * 1024) /* of all cells, and of the printed table */

/* Left-aligned columns, two spaces between them, nothing after the last. An empty cell shows "-". */
struct table {
  struct str text; /* the cells, one after the other */
  size_t columns, n, cap;
  size_t *ends; /* of each cell in `text` */
  bool colour;  /* states in colours: not in the header, or without one not in the first column */
  bool header;
};
void table_init(struct table *t, size_t columns, bool header, bool colour);
void table_done(struct table *t);
/* The next cell, row by row; cleaned. */
void table_cell(struct table *t, struct slice text);
/* Rows that are complete, to `out`. */
void table_print(const struct table *t, struct str *out);
#define auto_table __attribute__((cleanup(table_done))) struct table
