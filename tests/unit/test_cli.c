/* The command line tool without a server: words, tables, documents, the reading of arguments. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/mem.h"
#include "cli/client.h"
#include "cli/output.h"
#include "cli/table.h"
#include "cli/words.h"
#include <stdlib.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* ------------------------------------------------------------------ tables */

static void test_width(void **state) {
  (void)state;
  static const struct {
    const char *text;
    size_t width;
  } rows[] = {{"", 0},
              {"abc", 3},
              {"刻漏", 4},
              {"ｆｕｌｌ", 8},
              {"한글", 4},
              {"é", 1},
              {"e\xcc\x81", 1},
              {"😀", 2},
              {"𠀀", 2},
              {"→", 1},
              {"a\xe2\x80\x8b"
               "b",
               2},
              {"\xff\xfe", 2},
              {"かな", 4},
              {"\xe4\xb8", 2}};
  for (size_t i = 0; i < COUNT(rows); i++)
    assert_int_equal(text_width(slice_of(rows[i].text)), rows[i].width);
}

static void test_clean(void **state) {
  (void)state;
  static const char *const rows[][2] = {{"plain 刻", "plain 刻"},    {"a\nb\tc", "a\\nb\\tc"},
                                        {"\033[2J", "\\u001b[2J"},   {"\xc2\x9b", "\\u009b"},
                                        {"\xe2\x80\xae", "\\u202e"}, {"\xff", "\xef\xbf\xbd"},
                                        {"\x7f", "\\u007f"}};
  for (size_t i = 0; i < COUNT(rows); i++) {
    auto_str out;
    str_init(&out, 256);
    text_clean(&out, slice_of(rows[i][0]));
    assert_string_equal(out.p, rows[i][1]);
  }
}

static void fill(struct table *t, const char *const *cells) {
  for (; *cells; cells++)
    table_cell(t, slice_of(*cells));
}

static void test_table(void **state) {
  (void)state;
  auto_str out;
  str_init(&out, 4096);
  auto_table t;
  table_init(&t, 3, true, false);
  fill(&t, (const char *const[]){"ID", "名称", "STATE", "1", "a", "FAIL", "100", "", "x", "half", NULL});
  table_print(&t, &out); /* the row that is not complete is left out; nothing stands after the last column */
  assert_string_equal(out.p, "ID   名称  STATE\n1    a     FAIL\n100  -     x\n");
}

static void test_colours(void **state) {
  (void)state;
  auto_str with_header, without;
  str_init(&with_header, 4096);
  str_init(&without, 4096);
  auto_table t, u;
  table_init(&t, 2, true, true);
  fill(&t, (const char *const[]){"FAIL", "STATE", "FAIL", "b", NULL});
  table_print(&t, &with_header);
  assert_string_equal(with_header.p, "FAIL  STATE\n\033[31mFAIL\033[0m  b\n");
  table_init(&u, 2, false, true);
  fill(&u, (const char *const[]){"FAIL", "FAIL", NULL});
  table_print(&u, &without);
  assert_string_equal(without.p, "FAIL  \033[31mFAIL\033[0m\n");
}

/* ------------------------------------------------------------------ answers */

static json_t *parse(const char *text) {
  json_t *j = NULL;
  assert_int_equal(json_read(slice_of(text), 65536, &j, NULL), 0);
  return j;
}

static void test_dump(void **state) {
  (void)state;
  static const char *const rows[][3] = {
      {"{}", "{}\n", "{}\n"},
      {"[1,true,null,0.1]", "[\n  1,\n  true,\n  null,\n  0.1\n]\n", "- 1\n- true\n- null\n- 0.1\n"},
      {"{\"a\":{\"b\":[{\"c\":1,\"d\":[]},\"x\"]}}",
       "{\n  \"a\": {\n    \"b\": [\n      {\n        \"c\": 1,\n        \"d\": []\n      },\n      \"x\"\n  "
       "  ]\n  }\n}\n",
       "a:\n  b:\n    - c: 1\n      d: []\n    - x\n"},
      {"[[1,2],[3]]", "[\n  [\n    1,\n    2\n  ],\n  [\n    3\n  ]\n]\n", "- - 1\n  - 2\n- - 3\n"},
      {"[\"no\",\"NULL\",\"a b\",\"1\",\"a: b\",\"a\\nb\",\"-x\",\"ok-1.2/3\",\"\\u007f\\u0085\"]", NULL,
       "- \"no\"\n- \"NULL\"\n- \"a b\"\n- \"1\"\n- \"a: b\"\n- \"a\\nb\"\n- \"-x\"\n- ok-1.2/3\n- "
       "\"\\u007f\\u0085\"\n"},
  };
  for (size_t i = 0; i < COUNT(rows); i++) {
    auto_json *j = parse(rows[i][0]);
    auto_str json, yaml;
    str_init(&json, 4096);
    str_init(&yaml, 4096);
    dump_json(&json, j);
    dump_yaml(&yaml, j);
    if (rows[i][1])
      assert_string_equal(json.p, rows[i][1]);
    assert_string_equal(yaml.p, rows[i][2]);
  }
}

static void assert_shows(const char *noun, const char *verb, enum output form, const char *answer,
                         const char *want) {
  struct invocation g = {.noun = noun_find(noun), .output = form};
  g.verb = verb_find(g.noun, verb);
  assert_non_null(g.verb);
  auto_json *j = parse(answer);
  auto_str out;
  str_init(&out, 65536);
  output_add(&g, j, false, &out);
  assert_string_equal(out.p, want);
}

static void test_shapes(void **state) {
  (void)state;
  words_lang_set(LANG_EN);
  assert_shows("namespace", "list", OUT_TABLE, "{\"items\":[{\"name\":\"default\"},{\"name\":\"b\"}]}",
               "NAME     RETENTION_AGE  RETENTION_RUNS  MAX_CONCURRENT\n"
               "default  -              -               -\nb        -              -               -\n");
  assert_shows("task", "list", OUT_NAME, "{\"items\":[{\"name\":\"a\",\"namespace\":\"n\"}]}", "n/a\n");
  assert_shows("run", "get", OUT_NAME, "{\"id\":\"x\"}", "x\n");
  assert_shows("task", "pause", OUT_TABLE,
               "{\"id\":\"7\",\"name\":\"a\",\"state\":\"PAUSED\",\"next_at\":null}",
               "ID  NAME  STATE   SCHEDULE_TEXT  NEXT_AT\n7   a     PAUSED  -              -\n");
  const char *run = "{\"id\":\"x\",\"state\":\"FAIL\",\"error\":{\"type\":\"T\"},\"finished_at\":null,"
                    "\"payload\":{\"a\":1},"
                    "\"attempts\":[{\"attempt\":1},{\"attempt\":2}]}";
  assert_shows("run", "get", OUT_TABLE, run,
               "ID                  x\nSTATE               FAIL\nERROR.TYPE          T\nPAYLOAD             "
               "{\"a\":1}\n"
               "ATTEMPTS.1.ATTEMPT  1\nATTEMPTS.2.ATTEMPT  2\n");
  words_lang_set(LANG_ZH);
  assert_shows("namespace", "list", OUT_TABLE, "{\"items\":[]}", "名称  保留时长  保留条数  最多同时\n");
  words_lang_set(LANG_EN);
}

/* ------------------------------------------------------------------ arguments */

static int read_line(struct invocation *ret, const char *const *words) {
  static char *argv[32];
  int argc = 0;
  argv[argc++] = (char[]){"kelou"};
  for (; *words; words++)
    argv[argc++] = (char *)(uintptr_t)*words; /* as main gets them; nobody writes there */
  argv[argc] = NULL;
  return command_read(argc, argv, ret);
}
#define READ(ret, ...) read_line(ret, (const char *const[]){__VA_ARGS__, NULL})

static void test_arguments(void **state) {
  (void)state;
  struct invocation g;
  assert_int_equal(READ(&g, "--server", "http://x", "task", "get", "-o", "json", "a", "--namespace=n"), -1);
  assert_string_equal(g.noun->name, "task");
  assert_string_equal(g.verb->name, "get");
  assert_string_equal(g.args[0], "a");
  assert_string_equal(g.values[OPT_server], "http://x");
  assert_string_equal(g.values[OPT_namespace], "n");
  assert_int_equal(g.output, OUT_JSON);
  assert_int_equal(READ(&g, "task", "create", "-f", "-", "--timeout", "1500ms"), -1);
  assert_string_equal(g.values[OPT_file], "-");
  assert_true(g.timeout == 1500 * USEC_PER_MS);
  assert_int_equal(READ(&g, "task", "next", "a", "-n3"), -1);
  assert_string_equal(g.values[OPT_next_n], "3");
  assert_int_equal(READ(&g, "task", "preview", "-n", "3", "-f", "x"), -1);
  assert_null(g.values[OPT_next_n]);
  assert_string_equal(g.values[OPT_preview_n], "3");
  assert_int_equal(READ(&g, "task", "get", "--", "-odd"), -1);
  assert_string_equal(g.args[0], "-odd");
  assert_int_equal(READ(&g, "--lang", "zh", "cron", "next", "-n", "3"), -1);
  assert_int_equal(g.rest_argc, 4);
  assert_string_equal(g.rest_argv[0], "cron");
  assert_int_equal(words_lang(), LANG_ZH);
  assert_int_equal(READ(&g, "task", "get", "-h"), -1); /* what is missing does not matter then */
  assert_true(g.help);
}

static void test_bad_arguments(void **state) {
  (void)state;
  static const char *const rows[][6] = {{"tsk"},
                                        {"task"},
                                        {"task", "gte", "a"},
                                        {"task", "get"},
                                        {"task", "get", ""},
                                        {"task", "get", "a", "b"},
                                        {"task", "list", "--stat=x"},
                                        {"task", "list", "--state"},
                                        {"task", "list", "--all=1"},
                                        {"task", "list", "--limit", "1", "--limit=2"},
                                        {"task", "list", "-o", "xml"},
                                        {"task", "stats", "a", "-o", "name"},
                                        {"task", "list", "-o", "mermaid"},
                                        {"--lang", "fr", "version"},
                                        {"task", "list", "--timeout", "soon"},
                                        {"task", "list", "-x"},
                                        {"--wait", "task", "trigger", "a"},
                                        {"run", "list", "--timeout", "0s"}};
  for (size_t i = 0; i < COUNT(rows); i++) {
    struct invocation g;
    assert_int_equal(read_line(&g, rows[i]), EXIT_USAGE);
  }
}

/* ------------------------------------------------------------------ requests */

static void assert_target(const char *target, const char *body, const char *const *words) {
  struct invocation g;
  auto_request r = {0};
  assert_int_equal(read_line(&g, words), -1);
  assert_int_equal(request_build(&g, &r), 0);
  assert_string_equal(r.target.p, target);
  auto_free char *text = r.body ? json_canonical(r.body) : NULL;
  if (body)
    assert_string_equal(text, body);
  else
    assert_null(text);
}
#define TARGET(target, body, ...) assert_target(target, body, (const char *const[]){__VA_ARGS__, NULL})

static void test_requests(void **state) {
  (void)state;
  TARGET("/api/v1/tasks/a", NULL, "task", "get", "a");
  TARGET("/api/v1/tasks/n%2Fa", NULL, "task", "get", "n/a", "--namespace", "m");
  TARGET("/api/v1/tasks/m%2Fa", NULL, "task", "get", "a", "--namespace", "m");
  TARGET("/api/v1/tasks/17", NULL, "task", "get", "17", "--namespace", "m");
  TARGET("/api/v1/tasks/%E5%88%BB?version=2", NULL, "task", "get", "刻", "--version", "2");
  TARGET("/api/v1/runs?state=FAIL%2CSKIPPED&task=m%2Fa&namespace=m", NULL, "run", "list", "--task", "a",
         "--state", "fail,skipped", "--namespace", "m");
  TARGET("/api/v1/runs?since=yesterday", NULL, "run", "list", "--since", "yesterday");
  TARGET("/api/v1/tasks/a/trigger", "{\"executor\":\"e\",\"ignore_overlap\":true,\"payload\":[1]}", "task",
         "trigger", "a", "--payload", "[1]", "--executor", "e", "--ignore-overlap");
  TARGET("/api/v1/tasks/a/resume", "{\"catch_up\":true}", "task", "resume", "a", "--catch-up");
  TARGET("/api/v1/tasks/a?cancel=true", NULL, "task", "delete", "a", "--cancel");
  TARGET("/api/v1/executor-groups",
         "{\"max_connections\":4,\"name\":\"g\",\"namespace\":\"m\",\"routing\":\"LEAST_BUSY\"}", "group",
         "create", "g", "--routing", "least_busy", "--max-connections", "4", "--namespace", "m");
  TARGET("/api/v1/executor-groups", "{\"max_connections\":\"many\",\"name\":\"g\"}", "group", "create", "g",
         "--max-connections", "many");
  TARGET("/api/v1/executors/e%20f/drain?group=g", NULL, "executor", "drain", "e f", "--group", "g");
  TARGET("/api/v1/tasks/a?note=why", "{\"priority\":1}", "task", "patch", "a", "--patch", "{\"priority\":1}",
         "--note", "why");
}

static void test_request_headers(void **state) {
  (void)state;
  struct invocation g;
  auto_request a = {0}, b = {0}, given = {0}, match = {0};
  assert_int_equal(READ(&g, "task", "trigger", "x"), -1);
  assert_int_equal(request_build(&g, &a), 0);
  assert_int_equal(request_build(&g, &b), 0);
  assert_true(strlen(a.idempotency_key) > 20);
  assert_string_not_equal(a.idempotency_key, b.idempotency_key);
  assert_int_equal(a.header_count, 1);
  assert_int_equal(READ(&g, "task", "trigger", "x", "--idempotency-key", "mine"), -1);
  assert_int_equal(request_build(&g, &given), 0);
  assert_true(slice_eqz(given.headers[0].value, "mine"));
  assert_int_equal(READ(&g, "task", "pause", "x", "--version", "3"), -1);
  assert_int_equal(request_build(&g, &match), 0);
  assert_true(slice_eqz(match.headers[0].name, "If-Match") && slice_eqz(match.headers[0].value, "\"3\""));
}

static void test_bad_requests(void **state) {
  (void)state;
  static const char *const rows[][8] = {{"task", "create"},
                                        {"task", "patch", "a"},
                                        {"task", "patch", "a", "--patch", "{"},
                                        {"task", "patch", "a", "--patch", "[]"},
                                        {"task", "patch", "a", "--patch", "{}", "-f", "x"},
                                        {"task", "trigger", "a", "--payload", "x"},
                                        {"task", "trigger", "a", "--idempotency-key", "a b"},
                                        {"task", "pause", "a", "--version", "v"},
                                        {"group", "update", "g"}};
  for (size_t i = 0; i < COUNT(rows); i++) {
    struct invocation g;
    auto_request r = {0};
    assert_int_equal(read_line(&g, rows[i]), -1);
    assert_int_equal(request_build(&g, &r), EXIT_USAGE);
  }
}

/* ------------------------------------------------------------------ the tables themselves */

static void test_words(void **state) {
  (void)state;
  assert_int_equal(words_lang_of_locale("zh_CN.UTF-8"), LANG_ZH);
  assert_int_equal(words_lang_of_locale("zh"), LANG_ZH);
  assert_int_equal(words_lang_of_locale("zhuang"), LANG_EN);
  assert_int_equal(words_lang_of_locale(NULL), LANG_EN);
  auto_str out;
  str_init(&out, 256);
  words_lang_set(LANG_EN);
  words_add(&out, SAY_run_failed, "{2}", "FAIL"); /* what is filled in is not filled in again */
  assert_string_equal(out.p, "run {2} ended in FAIL");
}

/* Every verb can be asked for help in both languages, and every column of a table has a header. */
static void test_help(void **state) {
  (void)state;
  for (int lang = LANG_EN; lang < LANG_MAX_; lang++) {
    words_lang_set((enum lang)lang);
    for (size_t i = 0; i < command_verb_count; i++) {
      auto_str out;
      str_init(&out, HELP_MAX);
      help_add(&out, &command_nouns[command_verbs[i].noun], &command_verbs[i]);
      assert_false(str_failed(&out));
      assert_non_null(strstr(out.p, words_pick(command_verbs[i].en, command_verbs[i].zh)));
      assert_true(slice_utf8_valid(str_slice(&out)));
    }
  }
  words_lang_set(LANG_EN);
}

int main(void) {
  (void)unsetenv("KELOU_LANG");
  (void)setenv("LC_ALL", "C", 1);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_width),        cmocka_unit_test(test_clean),
      cmocka_unit_test(test_table),        cmocka_unit_test(test_colours),
      cmocka_unit_test(test_dump),         cmocka_unit_test(test_shapes),
      cmocka_unit_test(test_arguments),    cmocka_unit_test(test_bad_arguments),
      cmocka_unit_test(test_requests),     cmocka_unit_test(test_request_headers),
      cmocka_unit_test(test_bad_requests), cmocka_unit_test(test_words),
      cmocka_unit_test(test_help),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
