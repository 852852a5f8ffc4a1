#pragma once
/* Interning of task specs: canonical definition text → one shared task_spec. A million tasks share few specs.
 * Pure; not thread-safe: the trigger and the dispatcher have one each. */
#include "core/task_spec.h"

struct spec_cache;
/* `zones` is used for as long as the cache lives, by its thread only. Beyond `max` entries, those that nobody else holds go. */
struct spec_cache *spec_cache_new(struct zone_set *zones, size_t max);
void spec_cache_free(struct spec_cache **c);
/* *ret is a reference of the caller's (task_spec_unref). Errors as task_spec_parse; nothing is remembered of a failure. */
int spec_cache_get(struct spec_cache *c, struct slice definition, struct task_spec **ret, struct err *e);
/* Forget everything (zones were read anew): later gets build new specs; old ones live as long as their holders. */
void spec_cache_clear(struct spec_cache *c);
size_t spec_cache_size(const struct spec_cache *c);
