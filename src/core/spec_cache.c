#include "core/spec_cache.h"
#include "base/mem.h"
#include <uthash.h>

struct entry {
  char *definition;       /* owned; the key */
  struct task_spec *spec; /* the cache's own reference */
  UT_hash_handle hh;
};

struct spec_cache {
  struct zone_set *zones;
  struct entry *entries;
  size_t max;
};

struct spec_cache *spec_cache_new(struct zone_set *zones, size_t max) {
  struct spec_cache *c = mem_zalloc(sizeof *c);
  c->zones = zones;
  c->max = max;
  return c;
}

static void drop(struct spec_cache *c, struct entry *x) {
  HASH_DEL(c->entries, x);
  task_spec_unref(&x->spec);
  mem_free(x->definition);
  mem_free(x);
}

void spec_cache_clear(struct spec_cache *c) {
  struct entry *x, *next;
  HASH_ITER (hh, c->entries, x, next) {
    drop(c, x);
  }
}

void spec_cache_free(struct spec_cache **c) {
  if (!*c)
    return;
  spec_cache_clear(*c);
  mem_freep(c);
}

size_t spec_cache_size(const struct spec_cache *c) { return HASH_COUNT(c->entries); }

/* Drop what only the cache holds. When everything is in use the limit doubles: dropping would not free memory, only
 * make twins of the specs. */
static void shrink(struct spec_cache *c) {
  struct entry *x, *next;
  HASH_ITER (hh, c->entries, x, next) {
    if (x->spec->extra_refs == 0)
      drop(c, x);
  }
  if (spec_cache_size(c) > c->max / 2)
    c->max *= 2;
}

int spec_cache_get(struct spec_cache *c, struct slice definition, struct task_spec **ret, struct err *e) {
  struct entry *x;
  HASH_FIND(hh, c->entries, definition.p, definition.n, x);
  if (!x) {
    struct task_spec *spec;
    int r = task_spec_parse(definition, c->zones, &spec, e);
    if (r < 0)
      return r;
    if (spec_cache_size(c) >= c->max)
      shrink(c);
    x = mem_zalloc(sizeof *x);
    x->definition = mem_slicedup(definition);
    x->spec = spec;
    HASH_ADD_KEYPTR(hh, c->entries, x->definition, definition.n, x);
  }
  *ret = task_spec_ref(x->spec);
  return 0;
}
