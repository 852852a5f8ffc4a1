#include "cli/words.h"
#include "cli/table.h"
#include <ctype.h>
#include <stdio.h>

#define LINE_MAX_BYTES (64 * 1024)

const char *const lang_names[] = {"en", "zh", NULL};

static const char *const messages[][LANG_MAX_] = {
#define MESSAGE(id, en, zh) {en, zh},
#include "cli/words.def"
};
static const struct {
  const char *field, *text[LANG_MAX_];
} labels[] = {
#define LABEL(field, en, zh) {#field, {en, zh}},
#include "cli/words.def"
};
static const char *const opaque[] = {
#define OPAQUE(field) #field,
#include "cli/words.def"
};
static const struct {
  const char *word, *sgr;
} colours[] = {
#define COLOUR(word, sgr) {#word, sgr},
#include "cli/words.def"
};
#define COUNT(a) (sizeof(a) / sizeof *(a))

static enum lang current = LANG_EN;

void words_lang_set(enum lang l) { current = l; }

enum lang words_lang(void) { return current; }

enum lang words_lang_of_locale(const char *locale) {
  return locale && strncmp(locale, "zh", 2) == 0 && !isalpha((unsigned char)locale[2]) ? LANG_ZH : LANG_EN;
}

const char *words_pick(const char *en, const char *zh) { return current == LANG_ZH ? zh : en; }

void words_add(struct str *out, enum message m, const char *one, const char *two) {
  for (const char *p = messages[m][current]; *p; p++) {
    if (p[0] == '{' && (p[1] == '1' || p[1] == '2') && p[2] == '}') {
      const char *fill = p[1] == '1' ? one : two;
      str_addz(out, fill ? fill : "");
      p += 2;
    } else {
      str_addc(out, *p);
    }
  }
}

void words_complain(enum message m, const char *one, const char *two) {
  auto_str text, line;
  str_init(&text, LINE_MAX_BYTES);
  str_init(&line, LINE_MAX_BYTES);
  words_add(&text, m, one, two);
  str_addz(&line, "kelou: ");
  text_clean(&line, str_slice(&text));
  str_addc(&line, '\n');
  (void)fputs(line.p ? line.p : "", stderr); /* there is nowhere else to say it */
}

void words_label(struct str *out, struct slice field) {
  for (size_t i = 0; i < COUNT(labels); i++)
    if (slice_eqz(field, labels[i].field)) {
      str_addz(out, labels[i].text[current]);
      return;
    }
  for (size_t i = 0; i < field.n; i++)
    str_addc(out, (char)toupper((unsigned char)field.p[i]));
}

bool words_opaque(struct slice field) {
  for (size_t i = 0; i < COUNT(opaque); i++)
    if (slice_eqz(field, opaque[i]))
      return true;
  return false;
}

const char *words_colour(struct slice word) {
  for (size_t i = 0; i < COUNT(colours); i++)
    if (slice_eqz(word, colours[i].word))
      return colours[i].sgr;
  return NULL;
}
