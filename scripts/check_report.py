#!/usr/bin/env python3
"""Opens report.html files in headless Chromium and checks them as a reader would use them.

    scripts/check_report.py runs/cat/report.html [MORE.html ...] [--screenshots FOLDER]

Needs `chromium` and `chromedriver` (Debian: chromium, chromium-driver) and nothing of Python but its standard library; without
them it says so and ends with 77, which is "skipped". For each file: it opens without a message on the console, asks for
no address, every picture decodes, nothing is wider than a phone's screen, and, where there is a slider, each key press of the
keyboard changes the shown pictures and the step beside it.
"""

import argparse
import base64
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

SKIPPED = 77
RIGHT, LEFT, HOME, END = "\ue014", "\ue012", "\ue011", "\ue010"
PHONE, DESK = (390, 844), (1200, 900)

SHOWN = """
return {
  step: document.querySelector('output').textContent,
  frames: [...document.querySelectorAll('[data-frame]')].filter(f => f.offsetParent !== null)
    .map(f => [f.dataset.frame, f.querySelector('img') ? f.querySelector('img').src.length + f.querySelector('img').src.slice(-400) : '']),
};
"""


class Browser:
    """A session of headless Chromium over WebDriver."""

    def __init__(self, dark):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.profile = tempfile.TemporaryDirectory()
        self.driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL)
        self.address = f"http://127.0.0.1:{port}"
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"]
        flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        flags += [f"--user-data-dir={self.profile.name}"] + (["--blink-settings=preferredColorScheme=0"] if dark else [])
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": flags, "binary": shutil.which("chromium")},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        for _ in range(100):
            try:
                self.session = f"/session/{self.ask('POST', '/session', {'capabilities': {'alwaysMatch': wanted}})['sessionId']}"
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        raise SystemExit("check_report: chromedriver does not answer")

    def ask(self, method, path, body=None):
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def post(self, path, **body):
        return self.ask("POST", self.session + path, body)

    def run(self, script):
        return self.post("/execute/sync", script=script, args=[])

    def log(self, kind):
        return self.post("/se/log", type=kind)

    def size(self, size):
        # The window of an old headless has no frame; that of a new one does not get narrower than 500 by itself.
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        self.post("/goog/cdp/execute", cmd="Emulation.setDeviceMetricsOverride", params=metrics)

    def screenshot(self, path):
        """The whole page, however long."""
        shot = self.post("/goog/cdp/execute", cmd="Page.captureScreenshot", params={"captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self):
        self.ask("DELETE", self.session)
        self.driver.terminate()
        self.driver.wait()
        self.profile.cleanup()


def check(browser, page):
    """The faults of one file, as sentences."""
    faults = []
    browser.size(DESK)
    browser.post("/url", url="about:blank")
    for kind in ("browser", "performance"):
        browser.log(kind)  # of the page that a browser opens by itself
    browser.post("/url", url=page.resolve().as_uri())
    for message in browser.log("browser"):
        faults.append(f"the console says: {message['message']}")
    for entry in browser.log("performance"):
        event = json.loads(entry["message"])["message"]
        url = event.get("params", {}).get("request", {}).get("url", "")
        if event["method"] == "Network.requestWillBeSent" and not url.startswith(("file:", "data:")):
            faults.append(f"it asks for {url}")
    pictures = browser.run("return [...document.images].map(i => [i.alt, i.complete && i.naturalWidth > 0])")
    faults += [f"the picture '{alt}' does not decode" for alt, whole in pictures if not whole]
    faults += ["a picture has no alt text" for alt, _ in pictures if not alt]
    if not pictures:
        faults.append("it has no picture")
    if browser.run("return document.querySelector('output') !== null"):
        faults += slide(browser)
    browser.size(PHONE)
    wide = browser.run("return document.documentElement.scrollWidth")
    if wide > PHONE[0]:
        faults.append(f"it is {wide} pixels wide on a screen of {PHONE[0]}")
    return faults


def slide(browser):
    """Moves the slider from its first step to its last, key by key."""
    faults = []
    count = int(browser.run("return document.querySelector('input[type=range]').max")) + 1
    slider = next(iter(browser.post("/element", using="css selector", value="input[type=range]").values()))

    def press(key):
        browser.post(f"/element/{slider}/value", text=key)
        return browser.run(SHOWN)

    first, seen = press(HOME), []
    for shown in [first] + [press(RIGHT) for _ in range(count - 1)]:
        if not shown["frames"] or any(step != shown["step"] for step, _ in shown["frames"]):
            faults.append(f"at step {shown['step']} the pictures of {shown['frames']} are shown")
        if any(shown["frames"] == other["frames"] for other in seen):
            faults.append(f"step {shown['step']} shows the pictures of another")
        seen.append(shown)
    if count > 1 and press(LEFT) != seen[-2]:
        faults.append("a step back does not show what was there before")
    if press(END) != seen[-1]:
        faults.append("the end key does not show the last step")
    return faults


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("reports", nargs="+", type=pathlib.Path)
    arguments.add_argument("--screenshots", type=pathlib.Path, metavar="FOLDER")
    arguments.add_argument("--dark", action="store_true", help="as a reader sees it who prefers dark pages")
    given = arguments.parse_args()
    missing = [name for name in ("chromium", "chromedriver") if not shutil.which(name)]
    if missing:
        print(f"check_report: skipped, since this machine has no {' and no '.join(missing)}", file=sys.stderr)
        return SKIPPED
    browser, failed = Browser(given.dark), False
    try:
        for page in given.reports:
            faults = check(browser, page)
            failed |= bool(faults)
            for fault in faults:
                print(f"{page}: {fault}", file=sys.stderr)
            print(f"{page}: {'has faults' if faults else 'is as it should be'}")
            if given.screenshots:
                given.screenshots.mkdir(parents=True, exist_ok=True)
                for name, size in (("desk", DESK), ("phone", PHONE)):
                    browser.size(size)
                    browser.screenshot(given.screenshots / f"{page.parent.name}-{name}.png")
    finally:
        browser.close()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
