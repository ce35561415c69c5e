#!/bin/sh
# For "0 0 */2 * 1" croniter fires on odd days and on Mondays; cron fires on Mondays that are odd days.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet \
  croniter==7.0.0 cronsim==2.8
cd "$work"
cat >finding.py <<'PYTHON'
from datetime import datetime
from importlib.metadata import version

from croniter import croniter
from cronsim import CronSim

start = datetime(2026, 12, 1)


def days(times):
    return [f"{next(times):%a %d}" for _ in range(5)]


class Croniter:
    """croniter as an iterator of times, like CronSim."""

    def __init__(self, line):
        self.times = croniter(line, start)

    def __next__(self):
        return self.times.get_next(datetime)


# A field that begins with a star restricts nothing by itself: cron then asks for both
# days (crontab(5): "if either field starts with *"); so do cronsim, which follows
# Debian's cron, and Kubeflow Pipelines' recurring runs (robfig/cron).
LINES = ("0 0 */2 * 1", "0 0 1-31/2 * 1")
seen = {line: (days(Croniter(line)), days(CronSim(line, start))) for line in LINES}

print("croniter", version("croniter"), "cronsim", version("cronsim"))
print("guess: both name the same days, as both read crontab's five fields")
for line, (ours, cron) in seen.items():
    print(f"{line}: croniter {ours}")
    print(f"{line}: cronsim  {cron}")
same = [ours == cron for ours, cron in seen.values()]
if same != [False, True]:
    raise SystemExit("changed: they agree on a starred step, or no longer without it")
PYTHON
PATH="$work/venv/bin:$PATH" python finding.py

# Seen:
# croniter 7.0.0 cronsim 2.8
# 0 0 */2 * 1: croniter ['Thu 03', 'Sat 05', 'Mon 07', 'Wed 09', 'Fri 11']
# 0 0 */2 * 1: cronsim  ['Mon 07', 'Mon 21', 'Mon 11', 'Mon 25', 'Mon 01']
# 0 0 1-31/2 * 1: croniter ['Thu 03', 'Sat 05', 'Mon 07', 'Wed 09', 'Fri 11']
# 0 0 1-31/2 * 1: cronsim  ['Thu 03', 'Sat 05', 'Mon 07', 'Wed 09', 'Fri 11']
