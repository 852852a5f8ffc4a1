#pragma once
/* The zones by name, read once each through the caller's driver. Not thread-safe: one per thread, or under
 * the owner's lock. Pure: files are read by the callback only. */
#include "core/zone.h"

/* Where zones come from. `read` puts the bytes of the zone file `name` (checked: relative, no dots, letters
 * first) into *out and returns 0 or a negative code; any failure is told to the asker as ERR_UNKNOWN_ZONE,
 * except ERR_TOO_LARGE. `stamp` is a number that changes when the data is replaced. `arg` must outlive the
 * set. */
struct zone_source {
  int (*read)(void *arg, const char *name, struct str *out, struct err *e);
  uint64_t (*stamp)(void *arg);
  void *arg;
};

struct zone_set;
struct zone_set *zone_set_new(const struct zone_source *source);
void zone_set_free(struct zone_set **s);

/* The zone of that name: "UTC", "±hh:mm" or an IANA name in its exact spelling. Borrowed: valid until
 * zone_set_refresh or _free; zone_ref keeps it longer. Errors: ERR_UNKNOWN_ZONE (with the nearest name when
 * one is near), ERR_MALFORMED, ERR_TOO_LARGE. */
int zone_set_get(struct zone_set *s, struct slice name, const struct zone **ret, struct err *e);

/* Ask for the stamp; when it moved, forget all zones (holders keep theirs) and return true: then the owner
 * asks again for each zone in use and compares zone_digest. */
bool zone_set_refresh(struct zone_set *s);
