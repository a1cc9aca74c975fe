"""The page in a real browser: no console message, no request, nothing wider than the screen, light and dark.

Chromium is driven through its debugging pipe (null-terminated JSON on file descriptors 3 and 4): no package is needed.
"""

import base64
import fcntl
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ser_lightning.reports.report import write_report
from ser_lightning.reports.systems import find_systems

WriteFold = Callable[..., Path]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe"),
)
DESKTOP, PHONE, A4 = 1280, 390, 718  # pixels; the last is what default margins leave of the paper
# Measure invisible faults: a page wider than the screen, and pictures that do not load.
MEASURE = """JSON.stringify({
  width: document.documentElement.scrollWidth,
  pictures: [...document.images].map(i => [i.alt, i.naturalWidth, i.getBoundingClientRect().width]),
  background: getComputedStyle(document.body).backgroundColor,
  small: [...document.querySelectorAll("body *")].filter(e => e.childElementCount === 0 && e.textContent.trim() &&
    parseFloat(getComputedStyle(e).fontSize) < 12).length})"""


class Browser:
    """A headless Chromium with one page."""

    def __init__(self, executable: str, folder: Path) -> None:
        ends = (*os.pipe(), *os.pipe())
        pipes = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]  # away from 3 and 4
        for end in ends:
            os.close(end)
        read_commands, self._commands, self._answers, write_answers = pipes
        actions = [(os.POSIX_SPAWN_DUP2, read_commands, 3), (os.POSIX_SPAWN_DUP2, write_answers, 4)]
        nowhere = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)]
        command = [executable, *OPTIONS, f"--user-data-dir={folder}", "about:blank"]
        self._process = os.posix_spawn(executable, command, os.environ, file_actions=[*actions, *nowhere])
        os.close(read_commands)
        os.close(write_answers)
        self._rest = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: object) -> dict[str, Any]:
        """Send a command and return its answer; store events that arrive before it."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def open(self, path: Path, width: int, scheme: str) -> dict[str, Any]:
        """Open a page at a width, light or dark, and return what ``MEASURE`` finds."""
        self.events.clear()
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width == PHONE
        )
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.ask("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())
        found: dict[str, Any] = json.loads(
            self.ask("Runtime.evaluate", expression=MEASURE)["result"]["value"],
        )
        return found

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page."""
        data = self.ask("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def messages(self) -> list[dict[str, Any]]:
        """Return the messages of the page's console and of the browser's log."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [event["params"] for event in self.events if event.get("method") in kinds]

    def requested(self) -> list[str]:
        """Return the requested addresses, without data URLs."""
        urls = [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]
        return [url for url in urls if not url.startswith("data:")]

    def close(self) -> None:
        """Stop the browser."""
        os.kill(self._process, signal.SIGTERM)
        os.waitpid(self._process, 0)
        os.close(self._commands)
        os.close(self._answers)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._answers, 1 << 20)
            assert part, "the browser has ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip("there is no Chromium here")
    opened = Browser(executable, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(scope="module", params=["one system", "two systems"])
def page(request: pytest.FixtureRequest, write_fold: WriteFold, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    right = ((2, 0, 0, 0), (0, 1, 1, 0), (0, 0, 2, 0), (1, 0, 0, 1))
    poor = ((1, 1, 0, 0), (0, 1, 1, 0), (0, 0, 1, 1), (1, 0, 0, 1))
    systems = {"transfer": right} if request.param == "one system" else {"transfer": right, "baseline": poor}
    for name, matrix in systems.items():
        for fold in range(3):
            write_fold(folder / name / "ravdess-synthetic" / "default" / "seed-0", fold, matrix, experiment=name)
    return write_report(find_systems([folder])[0], folder / "report")


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_the_page_logs_nothing_requests_nothing_and_fits(browser: Browser, page: Path, width: int, scheme: str) -> None:
    found = browser.open(page, width, scheme)
    assert browser.messages() == []
    assert browser.requested() == [page.as_uri()]
    assert found["width"] <= width
    assert len(found["pictures"]) >= 6
    assert all(natural > 0 and shown > 200 for _, natural, shown in found["pictures"]), found["pictures"]
    assert found["background"] == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(21, 23, 26)")
    assert found["small"] == 0


@pytest.mark.browser
def test_messages_and_requests_would_be_seen(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text('<script>console.error("no")</script><img src="http://127.0.0.1:9/x.png" style="width: 3000px">')
    found = browser.open(page, DESKTOP, "light")
    assert browser.messages()
    assert "http://127.0.0.1:9/x.png" in browser.requested()
    assert found["width"] > DESKTOP


@pytest.mark.browser
def test_the_page_prints_light_in_dark_mode(browser: Browser, page: Path) -> None:
    browser.open(page, DESKTOP, "dark")
    browser.ask(
        "Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}]
    )
    background = 'getComputedStyle(document.documentElement).getPropertyValue("--page").trim()'
    assert browser.ask("Runtime.evaluate", expression=background)["result"]["value"] == "#fff"
    assert browser.ask("Page.printToPDF")["data"]
    browser.ask("Emulation.setDeviceMetricsOverride", width=A4, height=1000, deviceScaleFactor=1, mobile=False)
    tables = 'Math.max(...[...document.querySelectorAll("table")].map(t => t.getBoundingClientRect().right))'
    assert browser.ask("Runtime.evaluate", expression=tables)["result"]["value"] <= A4  # nothing is cut off
