#pragma once
/* A YAML document as JSON, for people who write documents by hand. Scalars by the YAML 1.2 core schema (no, on, 1:30 and dates
 * are texts); anchors, aliases, tags and keys given twice are refused, and what is nested deeper than YAML_DOC_DEPTH_MAX. */
#include "base/err.h"
#include "base/json.h"

#define YAML_DOC_DEPTH_MAX 64

/* One document of at most `max_bytes`; the caller owns the result. ERR_MALFORMED with line and column in the text, ERR_TOO_LARGE. */
int yaml_doc_read(struct slice text, size_t max_bytes, json_t **ret, struct err *e);
/* The same of one document or several (---), as an array. */
int yaml_doc_read_all(struct slice text, size_t max_bytes, json_t **ret, struct err *e);
