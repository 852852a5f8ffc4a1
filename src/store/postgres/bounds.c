/* Bounds that several nodes share: one pipeline, one transaction, one node after the other. */
#include "store/postgres/pg.h"

/* $1 ns, $2 group, $3 most, $4 part, $5 want, $6 take */
#define ROWS                                                                                                 \
  "unnest($1::text[], $2::text[], $3::int8[], $4::int8[], $5::int8[], $6::int8[]) WITH ORDINALITY u (ns, "   \
  "grp, most, part, want, take, ord)"

static void add_texts_of(struct pgw_args *a, const struct st_bound_exchange *in, bool group) {
  pgw_array(a, PG_TEXT_OID, in->count);
  for (size_t i = 0; i < in->count; i++)
    pgw_el_text(a, group ? (in->rows[i].group.p ? in->rows[i].group : SLICE("")) : in->rows[i].ns);
  pgw_array_end(a);
}

static void add_numbers(struct pgw_args *a, const struct st_bound_exchange *in, size_t offset) {
  pgw_array(a, PG_INT8_OID, in->count);
  for (size_t i = 0; i < in->count; i++)
    pgw_el_i8(a, *(const int64_t *)((const char *)&in->rows[i] + offset));
  pgw_array_end(a);
}

static void add_rows(struct pgw_args *a, const struct st_bound_exchange *in) {
  add_texts_of(a, in, false);
  add_texts_of(a, in, true);
  add_numbers(a, in, offsetof(struct bound_row, most));
  add_numbers(a, in, offsetof(struct bound_row, part));
  add_numbers(a, in, offsetof(struct bound_row, want));
  add_numbers(a, in, offsetof(struct bound_row, take));
  pgw_text0(a, in->node);
  pgw_i8(a, in->incarnation);
}

/* The parts of those that are gone go in the statement that judges whether all is settled: by one and the same snapshot. */
static void add_state(struct pg_store *s, const struct st_bound_exchange *in) {
  static const struct pg_sql lock = {"bound_lock", "SELECT FROM bound_turn FOR UPDATE", PG_WRITE};
  static const struct pg_sql node = {
      "bound_node",
      "INSERT INTO bound_node AS b (node, incarnation, adopted) VALUES ($1::text, $2::int8, $3::int8) ON "
      "CONFLICT (node) DO UPDATE SET incarnation = excluded.incarnation, adopted = excluded.adopted WHERE "
      "b.incarnation <> excluded.incarnation OR b.adopted <> excluded.adopted",
      PG_WRITE};
  static const struct pg_sql state = {
      "bound_state",
      "WITH n AS MATERIALIZED (SELECT id, incarnation FROM node WHERE lease_until > " PG_NOW "), "
      "st AS (UPDATE bound_turn SET (settled, published) = (SELECT coalesce(bool_and(n.id IS NOT NULL AND "
      "b.adopted IS NOT DISTINCT FROM o.epochs), false), coalesce(bool_and(b.node IS NOT NULL), false) "
      "FROM (SELECT owner, incarnation, sum(epoch)::int8 AS epochs FROM shard GROUP BY owner, incarnation) o "
      "LEFT JOIN n ON n.id = o.owner AND n.incarnation = o.incarnation LEFT JOIN bound_node b ON b.node = "
      "o.owner AND b.incarnation = o.incarnation) RETURNING settled), "
      "p AS (DELETE FROM bound_part p USING st WHERE st.settled AND NOT EXISTS (SELECT FROM n WHERE n.id = "
      "p.node AND n.incarnation = p.incarnation)), "
      "b AS (DELETE FROM bound_node b USING st WHERE st.settled AND NOT EXISTS (SELECT FROM n WHERE n.id = "
      "b.node AND n.incarnation = b.incarnation)) SELECT " PG_NOW,
      PG_WRITE};
  pgc_add(s, &lock);
  pgw_text0(&s->args, in->node);
  pgw_i8(&s->args, in->incarnation);
  pgw_i8(&s->args, in->adopted);
  pgc_add(s, &node);
  pgc_add(s, &state);
}

static void add_parts(struct pg_store *s, const struct st_bound_exchange *in) {
  static const struct pg_sql say = {
      "bound_say",
      "INSERT INTO bound_part AS p (ns, grp, node, incarnation, part, want) SELECT u.ns, u.grp, $7::text, "
      "$8::int8, u.part, u.want FROM " ROWS " ON CONFLICT (ns, grp, node, incarnation) DO UPDATE SET want = "
      "excluded.want, part = CASE WHEN excluded.part > p.part OR (SELECT settled FROM bound_turn) THEN "
      "excluded.part ELSE p.part END WHERE p.want <> excluded.want OR p.part <> excluded.part",
      PG_WRITE};
  static const struct pg_sql give = {
      "bound_give",
      "UPDATE bound_part p SET part = p.part + g.give FROM (SELECT u.ord, u.ns, u.grp, least(u.take, u.most "
      "- (SELECT coalesce(sum(q.part), 0)::int8 FROM bound_part q WHERE q.ns = u.ns AND q.grp = u.grp)) AS "
      "give FROM " ROWS ") g WHERE g.give > 0 AND (SELECT published FROM bound_turn) AND p.ns = g.ns AND "
      "p.grp = g.grp AND p.node = $7::text AND p.incarnation = $8::int8 RETURNING g.ord - 1, g.give",
      PG_WRITE};
  static const struct pg_sql wishes = {
      "bound_wishes",
      "SELECT u.ord - 1, p.node = $7::text AND p.incarnation = $8::int8, p.want FROM " ROWS
      " JOIN bound_part p ON p.ns = u.ns AND p.grp = u.grp JOIN node n ON n.id = p.node AND n.incarnation = "
      "p.incarnation AND n.lease_until > " PG_NOW " ORDER BY u.ord, p.node",
      PG_READ};
  add_rows(&s->args, in);
  pgc_add(s, &say);
  add_rows(&s->args, in);
  pgc_add(s, &give);
  add_rows(&s->args, in);
  pgc_add(s, &wishes);
}

static void read_all(PGresult *const *r, size_t count, struct st_bound_exchange_ret *ret, struct arena *mem) {
  size_t n = (size_t)PQntuples(r[5]);
  ret->now = pgw_int(r[2], 0, 0);
  ret->given = arena_array(mem, count, sizeof *ret->given);
  for (int i = 0; i < PQntuples(r[4]); i++)
    ret->given[pgw_int(r[4], i, 0)] = pgw_int(r[4], i, 1);
  ret->wishes = arena_array(mem, n, sizeof *ret->wishes);
  ret->wish_count = n;
  for (size_t i = 0; i < n; i++)
    ret->wishes[i] = (struct bound_wish){(size_t)pgw_int(r[5], (int)i, 0), pgw_int(r[5], (int)i, 1) != 0,
                                         pgw_int(r[5], (int)i, 2)};
}

int pg_bound_exchange(struct store *store, const struct st_bound_exchange *in,
                      struct st_bound_exchange_ret *ret, struct arena *mem, struct err *e) {
  struct pg_store *s = pg_of(store);
  PGresult *r[6] = {0};
  add_state(s, in);
  add_parts(s, in);
  int code = pgc_run(s, r, e);
  if (code == 0)
    read_all(r, in->count, ret, mem);
  for (size_t i = 0; i < sizeof r / sizeof r[0]; i++)
    pgr_clear(&r[i]);
  return code;
}
