#include "store/source.h"

void store_source_close(struct store_source **s) {
  if (*s)
    (*s)->ops->close(*s);
  *s = NULL;
}

int store_session(struct store_source *s, enum store_role role, struct store **ret, struct err *e) {
  return s->ops->session(s, role, ret, e);
}
