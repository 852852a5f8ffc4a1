#include "core/zone_set.h"
#include "base/mem.h"

#define NEAR_MAX   3           /* edits that still count as "did you mean" … */
#define NEAR_SHARE 4           /* … if they are at most every fourth letter */
#define NAME_LIST  "tzdata.zi" /* names every zone and link of the release */

struct entry {
  struct zone *zone;
  uint64_t hash;
};

struct zone_set {
  struct zone_source source;
  uint64_t stamp;
  struct entry *slots; /* open addressing, a power of two */
  size_t n, cap;
  struct str names; /* tzdata.zi, read when the first unknown name is asked for */
  bool names_read;
};

struct zone_set *zone_set_new(const struct zone_source *source) {
  struct zone_set *s = mem_zalloc(sizeof *s);
  s->source = *source;
  s->stamp = source->stamp(source->arg);
  str_init(&s->names, ZONE_FILE_MAX);
  return s;
}

static void forget(struct zone_set *s) {
  for (size_t i = 0; i < s->cap; i++)
    zone_unref(&s->slots[i].zone);
  mem_free(s->slots);
  s->slots = NULL;
  s->n = s->cap = 0;
  str_clear(&s->names);
  s->names_read = false;
}

void zone_set_free(struct zone_set **s) {
  if (*s) {
    forget(*s);
    str_done(&(*s)->names);
  }
  mem_freep(s);
}

static struct entry *slot_of(struct entry *slots, size_t cap, uint64_t hash, struct slice name) {
  for (size_t i = (size_t)hash & (cap - 1);; i = (i + 1) & (cap - 1)) {
    struct entry *at = &slots[i];
    if (!at->zone || (at->hash == hash && slice_eqz(name, zone_name(at->zone))))
      return at;
  }
}

static void insert(struct zone_set *s, struct zone *z, uint64_t hash) {
  if ((s->n + 1) * 2 > s->cap) {
    size_t cap = s->cap ? s->cap * 2 : 32;
    struct entry *slots = mem_array(cap, sizeof *slots);
    for (size_t i = 0; i < s->cap; i++)
      if (s->slots[i].zone)
        *slot_of(slots, cap, s->slots[i].hash, slice_of(zone_name(s->slots[i].zone))) = s->slots[i];
    mem_free(s->slots);
    s->slots = slots;
    s->cap = cap;
  }
  *slot_of(s->slots, s->cap, hash, slice_of(zone_name(z))) = (struct entry){z, hash};
  s->n++;
}

static bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
static bool is_name_char(char c) {
  return is_upper(c) || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
         c == '+' || c == '/';
}

/* No dots: so no "..", and none of the tables that lie beside the zones. A capital first: so no absolute
 * path, and not localtime or posixrules, which mean something else on every machine. */
static bool name_is_sane(struct slice name) {
  if (!name.n || name.n > ZONE_NAME_MAX || !is_upper(name.p[0]) || name.p[name.n - 1] == '/')
    return false;
  for (size_t i = 0; i < name.n; i++)
    if (!is_name_char(name.p[i]))
      return false;
  return true;
}

static char lower(char c) { return is_upper(c) ? (char)(c + 32) : c; }

/* Levenshtein distance without case, or NEAR_MAX + 1 when it is more than that. */
static unsigned distance(struct slice a, struct slice b) {
  uint8_t row[ZONE_NAME_MAX + 1];
  if (b.n > ZONE_NAME_MAX || (a.n > b.n ? a.n - b.n : b.n - a.n) > NEAR_MAX)
    return NEAR_MAX + 1;
  for (size_t j = 0; j <= b.n; j++)
    row[j] = (uint8_t)j;
  for (size_t i = 1; i <= a.n; i++) {
    unsigned diagonal = row[0], least = (unsigned)i;
    row[0] = (uint8_t)i;
    for (size_t j = 1; j <= b.n; j++) {
      unsigned best = diagonal + (lower(a.p[i - 1]) != lower(b.p[j - 1]));
      diagonal = row[j];
      best = best < row[j] + 1u ? best : row[j] + 1u;
      best = best < row[j - 1] + 1u ? best : row[j - 1] + 1u;
      row[j] = (uint8_t)best;
      least = best < least ? best : least;
    }
    if (least > NEAR_MAX)
      return NEAR_MAX + 1;
  }
  return row[b.n];
}

/* Lines "Z name …" and "L target name" of tzdata.zi. */
static struct slice name_in_line(struct slice line) {
  struct slice rest, word = slice_cut(line, ' ', &rest);
  if (slice_eqz(word, "L"))
    (void)slice_cut(rest, ' ', &rest);
  else if (!slice_eqz(word, "Z"))
    return (struct slice){NULL, 0};
  return slice_cut(rest, ' ', &rest);
}

static struct slice nearest(struct zone_set *s, struct slice name) {
  if (!s->names_read) {
    s->names_read = true;
    str_clear(&s->names);
    if (s->source.read(s->source.arg, NAME_LIST, &s->names, NULL) < 0 || str_failed(&s->names))
      str_clear(&s->names); /* no hints then */
  }
  struct slice rest = str_slice(&s->names), best = {NULL, 0};
  unsigned least = NEAR_MAX + 1;
  while (rest.n && least) {
    struct slice candidate = name_in_line(slice_cut(rest, '\n', &rest));
    unsigned d = candidate.n ? distance(name, candidate) : NEAR_MAX + 1;
    if (d < least) {
      least = d;
      best = candidate;
    }
  }
  return least <= name.n / NEAR_SHARE ? best : (struct slice){NULL, 0};
}

static int unknown(struct zone_set *s, struct slice name, struct err *e) {
  if (name.n > ZONE_NAME_MAX)
    return err_set(e, ERR_UNKNOWN_ZONE, "a time zone name has at most %d bytes", ZONE_NAME_MAX);
  struct slice hint = e ? nearest(s, name) : (struct slice){NULL, 0};
  if (hint.n)
    return err_set(e, ERR_UNKNOWN_ZONE, "there is no time zone %.*s; did you mean %.*s?", SLICE_FMT(name),
                   SLICE_FMT(hint));
  return err_set(e, ERR_UNKNOWN_ZONE,
                 "there is no time zone %.*s; expected a name such as Asia/Shanghai, UTC or +08:00",
                 SLICE_FMT(name));
}

static int load(struct zone_set *s, struct slice name, struct zone **ret, struct err *e) {
  int built_in = zone_builtin(name, ret, e);
  if (built_in)
    return built_in < 0 ? built_in : 0;
  if (!name_is_sane(name))
    return unknown(s, name, e);
  char path[ZONE_NAME_MAX + 1];
  (void)text_copy(path, sizeof path, name); /* its length was checked */
  auto_str bytes;
  str_init(&bytes, ZONE_FILE_MAX);
  int r = s->source.read(s->source.arg, path, &bytes, e);
  if (r == ERR_TOO_LARGE)
    return r;
  if (r < 0)
    return unknown(s, name, e);
  if (str_failed(&bytes))
    return err_set(e, ERR_TOO_LARGE, "the zone file of %s is larger than %d bytes", path, ZONE_FILE_MAX);
  return zone_parse(name, str_slice(&bytes), ret, e);
}

int zone_set_get(struct zone_set *s, struct slice name, const struct zone **ret, struct err *e) {
  uint64_t hash = slice_hash(name);
  if (s->cap) {
    struct entry *found = slot_of(s->slots, s->cap, hash, name);
    if (found->zone) {
      *ret = found->zone;
      return 0;
    }
  }
  struct zone *z = NULL;
  int r = load(s, name, &z, e);
  if (r < 0)
    return r;
  insert(s, z, hash);
  *ret = z;
  return 0;
}

bool zone_set_refresh(struct zone_set *s) {
  uint64_t stamp = s->source.stamp(s->source.arg);
  if (stamp == s->stamp)
    return false;
  s->stamp = stamp;
  forget(s);
  return true;
}
