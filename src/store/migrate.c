#include "store/migrate.h"
#include <inttypes.h>
#include <stdio.h>

void migration_checksum(const struct migration *m, char *ret_text) {
  snprintf(ret_text, MIGRATION_CHECKSUM_LEN + 1, "%016" PRIx64, slice_hash(slice_of(m->sql)));
}

static int check_applied(const struct migration *known, size_t known_count, const struct migration_applied *a,
                         struct err *e) {
  char checksum[MIGRATION_CHECKSUM_LEN + 1];
  if (a->number < 1 || (size_t)a->number > known_count)
    return err_set(
        e, ERR_SCHEMA,
        "the database holds migration %d (%.*s), this program knows %zu: it is older than the database",
        (int)a->number, SLICE_FMT(a->name), known_count);
  const struct migration *m = &known[a->number - 1];
  migration_checksum(m, checksum);
  if (!slice_eqz(a->name, m->name) || !slice_eqz(a->checksum, checksum))
    return err_set(e, ERR_SCHEMA,
                   "migration %s has changed since it was applied (as %.*s, checksum %.*s, now %s)", m->name,
                   SLICE_FMT(a->name), SLICE_FMT(a->checksum), checksum);
  return 0;
}

int migrate_run(const struct migration *known, const struct migrate_ops *ops, void *db, int32_t *ret_version,
                struct err *e) {
  auto_arena mem = {};
  struct migration_applied *applied;
  size_t applied_count, known_count = 0;
  char checksum[MIGRATION_CHECKSUM_LEN + 1];
  while (known[known_count].name)
    known_count++;
  int r = ops->list(db, &mem, &applied, &applied_count, e);
  for (size_t i = 0; r >= 0 && i < applied_count; i++) {
    r = check_applied(known, known_count, &applied[i], e);
    if (r == 0 && applied[i].number != (int32_t)i + 1)
      r = err_set(e, ERR_SCHEMA, "migration %zu is missing in the database, but %.*s is applied", i + 1,
                  SLICE_FMT(applied[i].name));
  }
  for (size_t i = applied_count; r >= 0 && i < known_count; i++) {
    migration_checksum(&known[i], checksum);
    r = ops->apply(db, &known[i], checksum, e);
  }
  if (r < 0)
    return r;
  *ret_version = (int32_t)known_count;
  return 0;
}
