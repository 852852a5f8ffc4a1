/* kelou fsm show: the run's state machine, without a server. */
#include "cli/output.h"
#include "core/run_fsm.h"
#include <stdio.h>
#include <unistd.h>

#define FSM_TEXT_MAX (256 * 1024)

int fsm_show(const struct invocation *given) {
  auto_str text, out;
  auto_json *rows = NULL;
  str_init(&text, FSM_TEXT_MAX);
  str_init(&out, FSM_TEXT_MAX);
  if (!given->output_given || given->output == OUT_MERMAID) {
    run_fsm_mermaid(&text);
    return print_out(&text);
  }
  run_fsm_json(&text);
  if (given->output == OUT_JSON)
    return print_out(&text);
  if (str_failed(&text) || json_read(str_slice(&text), FSM_TEXT_MAX, &rows, NULL) < 0)
    return 1;
  if (given->output == OUT_YAML)
    dump_yaml(&out, rows);
  else
    output_table(&out, rows, given->verb->shape->columns, NULL, false);
  return print_out(&out);
}
