"""A real browser, where one is installed, that looks at pages: do they scroll sideways, and what does their console say?"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Sequence
from functools import partial
from html import unescape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=60000")
LOOK = """<!doctype html><meta charset="utf-8"><title>looking</title><pre id="found"></pre><script>
const pages = PAGES, widths = WIDTHS, found = [];
async function look(page, width) {
  const frame = document.createElement("iframe");
  frame.style.width = width + "px"; frame.style.height = "900px"; frame.style.border = "0";
  const there = new Promise(resolve => { frame.onload = resolve; });
  frame.src = page; document.body.append(frame); await there;
  const root = frame.contentDocument.documentElement;
  const broken = [...frame.contentDocument.images].filter(image => image.complete && !image.naturalWidth).map(image => image.src);
  const silent = [...frame.contentDocument.images].filter(image => !image.alt).map(image => image.src);
  found.push({page, width, wide: root.scrollWidth, there: root.clientWidth, broken, silent});
  frame.remove();
}
(async () => {
  for (const page of pages) for (const width of widths) await look(page, width);
  document.getElementById("found").textContent = JSON.stringify(found); document.title = "done";
})();
</script>"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


def looked_at(folder: Path, pages: Sequence[str], widths: Sequence[int] = (400, 1400)) -> tuple[list[dict], list[str]]:
    """What each page of a folder is at each width, and the errors that the console told.

    Returns: dicts of "page", "width", "wide" (what the page takes), "there" (what it has), "broken" pictures, "silent" ones
        without words; and lines.
    """
    script = LOOK.replace("PAGES", json.dumps(list(pages))).replace("WIDTHS", json.dumps(list(widths)))
    (folder / "look.html").write_text(script)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_address[1]}/look.html"
        command = [BROWSER, *OPTIONS, "--window-size=1600,1000", "--dump-dom", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    finally:
        server.shutdown()
        server.server_close()
    assert "<title>done</title>" in done.stdout, done.stderr
    found = json.loads(unescape(done.stdout.split('<pre id="found">')[1].split("</pre>")[0]))
    return found, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
