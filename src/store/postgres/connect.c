/* A connection to the right server: every step of it is bounded in time, and a former primary that has come back is not the right one.
 * Which server it is: the system identifier of its database cluster and the timeline, which rises with each promotion. */
#include "store/postgres/pg.h"
#include "base/parse.h"
#include <poll.h>

#define HOSTS_MAX 16
#define SETUP_TIMEOUT                                                                                        \
  (5 * USEC_PER_SEC) /* for what is asked right after connecting: PG_CONNECT_TIMEOUT once more */
#define NOT_ALLOWED   "42501"
#define NO_SUCH_THING "42883"
#define NOT_OFFERED   "0A000"

struct pg_host { /* one of the URL's list; NULL: what libpq takes by itself */
  char *host, *address, *port;
};

struct pg_identity {
  uint64_t system;
  int64_t timeline;
};

static void on_notice(void *arg, const PGresult *r) {
  (void)arg; /* this layer never logs */
  (void)r;
}

/* Numbers only: nothing of a person's text goes into this. */
static void add_settings(struct str *s, const struct pg_source *o, enum store_role role) {
  bool hot = role == STORE_FIRE || role == STORE_FINISH || role == STORE_LEASE;
  str_addf(s, "SET synchronous_commit = on; SET default_transaction_isolation = 'read committed'; SET "
              "TimeZone = 'UTC';");
  str_addf(s, "SET statement_timeout = %" PRId64 "; SET lock_timeout = %" PRId64 ";",
           o->statement_timeout / USEC_PER_MS, o->statement_timeout / PG_LOCK_TIMEOUT_SHARE / USEC_PER_MS);
  str_addf(s, "SET idle_in_transaction_session_timeout = %" PRId64 ";", o->idle_tx_timeout / USEC_PER_MS);
  str_addf(s, "SET client_connection_check_interval = 2000; SET tcp_user_timeout = 10000; SET "
              "tcp_keepalives_idle = 5;");
  str_addf(s, "SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3;");
  /* Every look-up is by key: a plan made while a table was empty must not become a scan when it has grown. */
  str_addf(s,
           "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off;");
  str_addf(s, "SET plan_cache_mode = %s;", hot ? "force_generic_plan" : "auto");
}

/* PQexec that gives up after a while: the last result, or NULL when it did not come. */
static PGresult *exec_bounded(PGconn *conn, const char *text) {
  usec_t until = clock_system.mono(&clock_system) + SETUP_TIMEOUT;
  PGresult *last = NULL;
  bool sent = PQsendQuery(conn, text);
  while (sent) {
    while (PQisBusy(conn)) {
      usec_t left = until - clock_system.mono(&clock_system);
      if (left <= 0 || !pgc_wait_socket(conn, POLLIN, left) || !PQconsumeInput(conn)) {
        pgr_clear(&last);
        return NULL;
      }
    }
    PGresult *r = PQgetResult(conn);
    if (!r)
      break;
    pgr_clear(&last);
    last = r;
  }
  return last;
}

static int bad_answer(const PGconn *conn, const PGresult *r, struct err *e) {
  return r ? pgc_error(conn, r, ERR_UNAVAILABLE, e)
           : err_set(e, ERR_UNAVAILABLE, "PostgreSQL at %s:%s takes connections and does not answer",
                     PQhost(conn), PQport(conn));
}

/* ---------------------------------------------------------------- which server it is */

static bool cannot_tell(const PGresult *r) {
  const char *state = r ? PQresultErrorField(r, PG_DIAG_SQLSTATE) : NULL;
  return state && (strcmp(state, NOT_ALLOWED) == 0 || strcmp(state, NO_SUCH_THING) == 0 ||
                   strcmp(state, NOT_OFFERED) == 0);
}

/* A server that does not tell (some hosted ones do not) has zeros. */
static int identify(PGconn *conn, struct pg_identity *ret, struct err *e) {
  auto_result r = exec_bounded(
      conn, "SELECT system_identifier, CASE WHEN pg_is_in_recovery() THEN 0 ELSE "
            "('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int8 END FROM "
            "pg_control_system()");
  *ret = (struct pg_identity){0};
  if (cannot_tell(r))
    return 0;
  if (PQresultStatus(r) != PGRES_TUPLES_OK || PQntuples(r) != 1)
    return bad_answer(conn, r, e);
  int64_t system = 0;
  int rc = parse_i64(slice_of(PQgetvalue(r, 0, 0)), INT64_MIN, INT64_MAX, &system, e);
  if (rc == 0)
    rc = parse_i64(slice_of(PQgetvalue(r, 0, 1)), 0, UINT32_MAX, &ret->timeline, e);
  ret->system = (uint64_t)system;
  return rc < 0 ? err_set(e, ERR_UNAVAILABLE, "PostgreSQL does not say which server it is") : 0;
}

/* Is it the one with which we began, and no earlier state of it? Notes what it sees. */
static int look_at(struct pg_source *o, const PGconn *conn, const struct pg_identity *id, struct err *e) {
  uint64_t system = 0;
  if (!id->system)
    return 0;
  if (!atomic_compare_exchange_strong(&o->system, &system, id->system) && system != id->system)
    return err_set(e, ERR_UNAVAILABLE,
                   "%s:%s is another database cluster than the one with which this node started",
                   PQhost(conn), PQport(conn));
  int64_t seen = atomic_load(&o->timeline);
  while (id->timeline > seen && !atomic_compare_exchange_weak(&o->timeline, &seen, id->timeline))
    ;
  if (id->timeline < seen)
    return err_set(e, ERR_UNAVAILABLE,
                   "%s:%s is a former primary: its timeline is %" PRId64
                   ", another server has gone on with %" PRId64,
                   PQhost(conn), PQport(conn), id->timeline, seen);
  return 0;
}

/* ---------------------------------------------------------------- connecting */

/* `h` NULL: as the URL says. */
static PGconn *open_host(struct pg_source *o, enum store_role role, const struct pg_host *h,
                         struct pg_identity *ret_id, struct err *e) {
  static const char *const names[STORE_ROLE_MAX_] = {"kelou fire", "kelou finish", "kelou lease", "kelou api",
                                                     "kelou listen"};
  /* those before dbname may be overridden by the URL, those after it override it */
  const char *keys[] = {"connect_timeout",
                        "target_session_attrs",
                        "keepalives",
                        "keepalives_idle",
                        "keepalives_interval",
                        "keepalives_count",
                        "tcp_user_timeout",
                        "dbname",
                        "application_name",
                        "client_encoding",
                        "host",
                        "hostaddr",
                        "port",
                        NULL};
  const char *values[] = {PG_CONNECT_TIMEOUT,
                          "read-write",
                          "1",
                          "5",
                          "2",
                          "3",
                          "10000",
                          o->url,
                          names[role],
                          "UTF8",
                          h ? h->host : NULL,
                          h ? h->address : NULL,
                          h ? h->port : NULL,
                          NULL};
  PGconn *conn = PQconnectdbParams(keys, values, 1); /* NULL values are as if not there */
  if (!conn)
    mem_exhausted();
  if (PQstatus(conn) != CONNECTION_OK) {
    pgc_error(conn, NULL, ERR_UNAVAILABLE, e);
    PQfinish(conn);
    return NULL;
  }
  PQsetNoticeReceiver(conn, on_notice, NULL);
  auto_str text = {};
  str_init(&text, 4096);
  add_settings(&text, o, role);
  auto_result r = exec_bounded(conn, text.p);
  int rc = PQresultStatus(r) == PGRES_COMMAND_OK ? 0 : bad_answer(conn, r, e);
  if (rc == 0)
    rc = identify(conn, ret_id, e);
  if (rc == 0)
    rc = look_at(o, conn, ret_id, e);
  if (rc == 0)
    return conn;
  PQfinish(conn);
  return NULL;
}

/* Of several that would take writes the one on the highest timeline: the others have been left behind by a fail-over. */
PGconn *pgc_connect(struct pg_source *o, enum store_role role, int64_t *ret_timeline, struct err *e) {
  struct pg_identity id, best_id = {0};
  if (o->host_count < 2) {
    PGconn *conn = open_host(o, role, NULL, &best_id, e);
    *ret_timeline = best_id.timeline;
    return conn;
  }
  PGconn *best = NULL;
  auto_str why = {};
  str_init(&why, ERR_TEXT_MAX);
  for (int i = 0; i < o->host_count; i++) {
    struct err one = {0};
    PGconn *conn = open_host(o, role, &o->hosts[i], &id, &one);
    if (!conn) {
      str_addf(&why, "%s%s", why.n ? "; " : "", one.text);
    } else if (!best || id.timeline > best_id.timeline) {
      PQfinish(best);
      best = conn;
      best_id = id;
    } else {
      PQfinish(conn);
    }
  }
  if (!best)
    (void)err_set(e, ERR_UNAVAILABLE, "%.*s", (int)why.n, why.p ? why.p : "");
  *ret_timeline = best_id.timeline;
  return best;
}

void pgc_survey(struct pg_source *o) {
  for (int i = 0; i < o->host_count && o->host_count > 1; i++) {
    struct pg_identity id;
    PGconn *conn = open_host(o, STORE_API, &o->hosts[i], &id, NULL);
    PQfinish(conn); /* what there was to see is noted */
  }
}

/* ---------------------------------------------------------------- the list of hosts */

static struct slice item_of(const char *list, int n) {
  struct slice one = {0}, rest = slice_of(list ? list : "");
  for (int i = 0; i <= n && rest.p; i++)
    one = slice_cut(rest, ',', &rest);
  return one;
}

static int items_in(const char *list) {
  int n = 0;
  for (struct slice rest = slice_of(list ? list : ""); rest.n; n++)
    (void)slice_cut(rest, ',', &rest);
  return n;
}

/* An item of a list that is shorter than the list of hosts: its one item is for all of them. */
static char *item_for(const char *list, int n) {
  struct slice s = item_of(list, items_in(list) == 1 ? 0 : n);
  char *z = s.n ? mem_zalloc(s.n + 1) : NULL;
  return z ? memcpy(z, s.p, s.n) : NULL;
}

static void read_hosts(struct pg_source *o) {
  char *wrong = NULL;
  const char *hosts = NULL, *addresses = NULL, *ports = NULL;
  PQconninfoOption *options = PQconninfoParse(o->url, &wrong);
  PQfreemem(wrong); /* connecting will say so */
  for (const PQconninfoOption *x = options; x && x->keyword; x++) {
    hosts = strcmp(x->keyword, "host") == 0 ? x->val : hosts;
    addresses = strcmp(x->keyword, "hostaddr") == 0 ? x->val : addresses;
    ports = strcmp(x->keyword, "port") == 0 ? x->val : ports;
  }
  int n = items_in(hosts) > items_in(addresses) ? items_in(hosts) : items_in(addresses);
  if (n > HOSTS_MAX)
    n = 0; /* libpq walks such a list by itself, without the guard */
  o->hosts = n > 1 ? mem_array((size_t)n, sizeof *o->hosts) : NULL;
  o->host_count = n > 1 ? n : 0;
  for (int i = 0; i < o->host_count; i++)
    o->hosts[i] = (struct pg_host){item_for(hosts, i), item_for(addresses, i), item_for(ports, i)};
  PQconninfoFree(options);
}

void pgc_source_init(struct pg_source *o, const struct store_options *options) {
  *o = (struct pg_source){
      .url = mem_strdup(options->url),
      .statement_timeout = options->statement_timeout > 0 ? options->statement_timeout : PG_STATEMENT_TIMEOUT,
      .idle_tx_timeout = options->idle_tx_timeout > 0 ? options->idle_tx_timeout : PG_IDLE_TX_TIMEOUT};
  o->lease_timeout = options->lease_timeout > 0 ? options->lease_timeout : 3 * o->idle_tx_timeout;
  read_hosts(o);
}

void pgc_source_done(struct pg_source *o) {
  for (int i = 0; i < o->host_count; i++) {
    mem_free(o->hosts[i].host);
    mem_free(o->hosts[i].address);
    mem_free(o->hosts[i].port);
  }
  mem_free(o->hosts);
  mem_free(o->url);
}
