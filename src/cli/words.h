#pragma once
/* What people read, in English or Chinese (words.def). */
#include "base/str.h"

enum lang { LANG_EN, LANG_ZH, LANG_MAX_ };
extern const char *const lang_names[]; /* "en", "zh", NULL */

#define MESSAGE(id, en, zh) SAY_##id,
enum message {
#include "cli/words.def"
  SAY_MAX_
};

/* The language is one for the whole process; set before anything is said. */
void words_lang_set(enum lang l);
enum lang words_lang(void);
/* "zh_CN.UTF-8" and the like → LANG_ZH, everything else (NULL too) → LANG_EN. */
enum lang words_lang_of_locale(const char *locale);

/* The message with {1} and {2} filled in, appended to `out`; NULL fills in nothing. */
void words_add(struct str *out, enum message m, const char *one, const char *two);
/* "kelou: " + the message + a line feed on standard error; control characters in it are made visible. */
void words_complain(enum message m, const char *one, const char *two);
/* One of two texts, by language. */
const char *words_pick(const char *en, const char *zh);
/* The header of a field's column; the field itself in upper case when the table does not know it. */
void words_label(struct str *out, struct slice field);
/* Whether the field's value is the user's own document. */
bool words_opaque(struct slice field);
/* SGR parameters for a word such as "SUCCESS"; NULL: none. */
const char *words_colour(struct slice word);
