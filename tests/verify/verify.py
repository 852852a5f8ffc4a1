"""The verifier as a function."""
from .after import After
from .instants import Crons
from .rules import DOUBLED, LOST, OTHER, STUCK, Options, Rules, SECOND
from .tables import read_journal, read_tables


def verify(database, journals, kelou, all_ended=False, grace_seconds=60):
    """Findings over a database (SQLite file or URL) and journal files."""
    tables = read_tables(database)
    entries = [e for path in journals for e in read_journal(path)]
    rules = Rules(tables, entries, Crons(kelou), Options(all_ended, int(grace_seconds * SECOND)))
    found = rules.check()
    After(rules).check()
    found.tasks, found.runs = len(tables.versions), len(tables.runs)
    return found


def report(found, most=20):
    """What is printed: the findings, at most `most` of each kind, and the verdict as the last line."""
    lines = []
    for kind in (LOST, DOUBLED, STUCK, OTHER):
        lines += [f"{kind}: {text}" for text in found.texts[kind][:most]]
        if len(found.texts[kind]) > most:
            lines.append(f"{kind}: … and {len(found.texts[kind]) - most} more")
    lines += [f"repeated start: {text}" for text in found.starts[:most]]
    if len(found.starts) > most:
        lines.append(f"repeated start: … and {len(found.starts) - most} more")
    other = f", {found.counts[OTHER]} other faults" if found.counts[OTHER] else ""
    lines.append(f"verified: {found.tasks} tasks, {found.instants} instants, {found.counts[LOST]} lost, {found.counts[DOUBLED]} doubled, "
                 f"{found.counts[STUCK]} stuck, {len(found.starts)} repeated starts (listed){other}")
    return "\n".join(lines)
