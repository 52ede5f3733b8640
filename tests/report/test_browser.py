"""The page in a real browser: opened from the disk, no console message, no request, nothing wider than the screen."""

from __future__ import annotations

import http.server
import shutil
import subprocess
import threading
from html import escape
from pathlib import Path

import pytest
from stories import make_story

from softknee.report import html, write

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: the page was not opened in a browser"),
]


def opened(address: str, folder: Path, *options: str) -> tuple[str, str]:
    """The document after loading, and what the browser had to say."""
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
        "--user-data-dir=" + str(folder / "profile"), "--enable-logging=stderr", "--virtual-time-budget=2000",
        "--dump-dom", *options, address,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, done.stderr


def console(log: str) -> list[str]:
    """Lines that the page itself caused: CONSOLE messages, with violations of its policy among them."""
    return [line for line in log.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def proxy():
    """A proxy that refuses and remembers: every address that the browser asks for, but files, goes through it."""
    asked: list[str] = []

    class Refuse(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(403)

        do_CONNECT = do_POST = do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"--proxy-server=http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_charts_show_and_nothing_is_asked_for(story, tmp_path, proxy):
    option, asked = proxy
    asked.clear()
    dom, log = opened(
        write(story, tmp_path / "report.html").as_uri(), tmp_path, option, "--proxy-bypass-list=<-loopback>"
    )
    assert dom.count('<svg class="chart" viewBox="0 0 360') == 3 + 8 + 2, (
        "signal, gradient, dead; histograms; reliability"
    )
    assert dom.count('<svg class="chart row"') == 4 + 10, "arms and cohorts with a difference"
    assert dom.count('src="data:image/png') == 50
    assert console(log) == []
    assert [address for address in asked if not _of_the_browser(address)] == []


def _of_the_browser(address: str) -> bool:
    """What Chromium asks on its own account, whatever page is open."""
    return any(host in address for host in ("google", "gvt1.com", "gstatic"))


def test_a_request_and_a_console_message_would_be_seen(tmp_path, proxy):
    option, asked = proxy
    asked.clear()
    page = tmp_path / "bad.html"
    page.write_text('<img src="http://example.com/pixel.png"><script>console.error("seen")</script>')
    _, log = opened(page.as_uri(), tmp_path, option)
    assert any("example.com" in address for address in asked)
    assert any("seen" in line for line in console(log))


def test_hostile_names_do_not_run(tmp_path):
    hostile = "<script>document.title='owned'</script></script><img src=x onerror=\"document.title='owned'\">"
    page = write(make_story(lambda text: text + hostile), tmp_path / "report.html")
    dom, log = opened(page.as_uri(), tmp_path)
    assert "<title>owned" not in dom
    assert console(log) == []


MEASURE = """<!doctype html><body style="margin:0"><iframe id="f" style="border:0;width:{width}px;height:800px"
  srcdoc="{page}"></iframe><script>
onload = () => {{
  const d = document.getElementById("f").contentDocument, wide = [],
    root = d.documentElement;
  d.querySelectorAll("details").forEach(e => e.open = true);
  for (const e of d.body.querySelectorAll("*"))
    if (e.getBoundingClientRect().right > root.clientWidth + 1) wide.push(e.tagName);
  document.body.dataset.over = root.scrollWidth - root.clientWidth;
  document.body.dataset.wide = wide.join(" ");
}}
</script>"""


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
@pytest.mark.parametrize("long", [False, True], ids=["short names", "long names"])
def test_no_horizontal_scrolling(story, tmp_path, width, long):
    shown = make_story(lambda text: text + "_" + "averylongname" * 6) if long else story
    page = tmp_path / "frame.html"
    page.write_text(MEASURE.format(width=width, page=escape(html.page(shown))), encoding="utf-8")
    dom, _ = opened(page.as_uri(), tmp_path)
    assert 'data-over="0"' in dom, dom[-300:]
    assert 'data-wide=""' in dom, dom[-300:]


def test_the_measure_can_fail(tmp_path):
    page = tmp_path / "frame.html"
    page.write_text(
        MEASURE.format(width=390, page=escape("<body><div style='width:900px'>wide</div>")), encoding="utf-8"
    )
    dom, _ = opened(page.as_uri(), tmp_path)
    assert 'data-wide="DIV"' in dom
