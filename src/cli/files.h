#pragma once
/* Files with documents for `apply`: tasks and executor groups, one file or a folder of them. */
#include "base/err.h"
#include "base/json.h"

#define FILES_MAX       10000 /* of a folder */
#define FILES_DEPTH_MAX 16    /* of folders in folders */

/* One file: what it says, in its order, and where each stands: "a.yaml: document 2: /tasks/1", to be followed by a JSON pointer. */
struct doc_file {
  char *path;
  json_t *tasks, *groups; /* arrays */
  char **task_places, **group_places;
  size_t task_count, group_count;
  size_t documents; /* that are not empty */
};
struct doc_files {
  struct doc_file *v;
  size_t n, cap;
};

/* Read the file or the files below the folder, by ascending path. `ns` (may be NULL) is set where a document names no namespace. All
 * files are looked at; what is wrong with each is said. Returns the exit code, else 0. */
int files_read(const char *path, const char *ns, struct doc_files *ret);
void files_done(struct doc_files *f);
