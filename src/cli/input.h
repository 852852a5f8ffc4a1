#pragma once
/* Documents that a command is given: files, standard input, texts on the command line. */
#include "base/err.h"
#include "base/json.h"

#define INPUT_MAX ((size_t)16 * 1024 * 1024) /* bytes of one document; the server has its own limit */

/* A whole file of at most `max_bytes`; "-" is standard input. Appended to `out`. Errors name the file. */
int input_bytes(const char *path, size_t max_bytes, struct str *out, struct err *e);
/* The document in a file: YAML when its name ends in .yaml or .yml, else JSON. Errors name the file. */
int input_document(const char *path, json_t **ret, struct err *e);
/* A document as an option's value: JSON, or @FILE. */
int input_value(const char *text, json_t **ret, struct err *e);
