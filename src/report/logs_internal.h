#pragma once
/* Private to src/report. */
#include "report/logs.h"

/* Read a page from this store. */
int logs_list(struct store *store, const struct logs_ask *ask, struct logs_page *ret, struct arena *mem,
              struct err *e);
