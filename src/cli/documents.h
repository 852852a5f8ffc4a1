#pragma once
/* Documents that `apply` takes, written: on standard output, or a file each in a folder. */
#include "base/json.h"
#include "cli/commands.h"

struct documents {
  json_t *groups, *tasks; /* arrays; sorted by namespace and name when they are written */
  /* "namespace/name" of a task → array of texts that stand above it as comments; NULL: there are none */
  const json_t *remarks;
  bool replace; /* files that exist; else they are refused */
};
/* YAML, or JSON by -o json; only the names by -o name; with --to DIR/<namespace>/tasks/<name>.yaml and …/groups/<name>.yaml. Returns
 * the exit code; what is wrong has been said. */
int documents_write(const struct invocation *given, const struct documents *d);
/* Where a task or group without a namespace is. */
const char *document_namespace(const json_t *doc);
