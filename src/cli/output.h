#pragma once
/* Answers on standard output. */
#include "base/json.h"
#include "cli/commands.h"

/* Print an answer (NULL: nothing to print) as -o asks: a document, or one with "items". Returns the exit code. */
int output_show(const struct invocation *given, const json_t *answer);
/* As -o asks, into `out`. */
void output_add(const struct invocation *given, const json_t *answer, bool colour, struct str *out);
/* A value as indented JSON, or as YAML; each ends with a line feed. */
void dump_json(struct str *out, const json_t *j);
void dump_yaml(struct str *out, const json_t *j);
/* Whether standard output takes colours. */
bool output_colour(void);
/* A table of rows, columns as "a b.c d". */
void output_table(struct str *out, const json_t *rows, const char *columns, const char *more, bool colour);
