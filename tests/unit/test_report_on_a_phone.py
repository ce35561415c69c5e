"""The report in a real browser: a telephone, Kubeflow's side panel (447), a screen.

Skipped without chromium.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from report_world import crowded

# Says what sticks out, which row of the facts ends before the page does, and every text
# of a drawing that is too small to read or lies on another.
PROBE = """<script>onload = () => {
  const found = {inner: innerWidth, scroll: document.documentElement.scrollWidth,
                 outside: [], holes: [], small: [], upon: []};
  for (const e of document.querySelectorAll("body *"))
    if (!e.closest("thead") && e.getBoundingClientRect().right > innerWidth + 1)
      found.outside.push(e.tagName + "." + e.getAttribute("class"));
  for (const grid of document.querySelectorAll(".facts")) {
    const rows = {}, end = grid.getBoundingClientRect().right;
    for (const e of grid.children) {
      const box = e.getBoundingClientRect();
      rows[box.top] = Math.max(rows[box.top] || 0, box.right);
    }
    for (const right of Object.values(rows))
      if (right < end - 1) found.holes.push(right);
  }
  for (const svg of document.querySelectorAll("figure svg")) {
    const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
    const boxes = [];
    for (const text of svg.querySelectorAll("text")) {
      const a = text.getBoundingClientRect();
      if (parseFloat(getComputedStyle(text).fontSize) * scale < 11)
        found.small.push(text.textContent);
      for (const b of boxes)
        if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
            && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3)
          found.upon.push(text.textContent);
      boxes.push(a);
    }
  }
  parent.postMessage(JSON.stringify(found), "*");
}</script></body>"""
FAULTS = ("outside", "holes", "small", "upon")
# A window of chromium is never narrower than 500 pixels, a frame may be.
FRAME = """<body style="margin: 0"><script>onmessage = event => {
  document.body.textContent = "found " + event.data + " end"; }</script>
<iframe src="page.html" style="border: 0; width: WIDTHpx; height: 900px"></iframe>"""


@pytest.mark.parametrize("width", [360, 390, 447, 620, 768, 1280])
def test_a_page_of_long_names_fits_and_can_be_read(width: int, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if not browser:
        pytest.skip("No chromium here (Debian's package of that name).")
    # The page's own policy forbids every script, this probe too.
    page = re.sub(r"<meta http-equiv[^>]*>", "", crowded())
    (tmp_path / "page.html").write_text(page.replace("</body>", PROBE), "utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.replace("WIDTH", str(width)), "utf-8")
    done = subprocess.run(
        [
            *(browser, "--headless=new", "--no-sandbox", "--disable-gpu"),
            *("--window-size=1600,900", "--hide-scrollbars", "--dump-dom"),
            *(
                "--virtual-time-budget=5000",
                f"--user-data-dir={tmp_path / 'profile'}",
                frame.as_uri(),
            ),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    told = re.search(r"found (\{.*\}) end", unescape(done.stdout), re.DOTALL)
    assert told, done.stdout[-2000:]
    found: dict[str, Any] = json.loads(told[1])

    assert found.pop("inner") == width
    assert found == {"scroll": width, **{fault: [] for fault in FAULTS}}
