"""Debian's chromium, headless, driven over its DevTools pipe: no driver and no client library."""

import base64
import json
import os
import select
import shutil
import subprocess
import time

import pytest


def chromium():
    """The program; skips the test where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    return found


class Browser:
    """One page. `console` holds its errors and warnings, `requests` all that it fetched."""

    def __init__(self, profile):
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
                 "--disable-background-networking", "--disable-component-update",
                 "--hide-scrollbars", "--disable-dev-shm-usage", "--remote-debugging-pipe",
                 f"--user-data-dir={profile}", "about:blank"]  # fmt: skip
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # The browser reads commands at 3 and writes to 4, whatever numbers our pipes have.
        both = f'exec 3<&{theirs_in} 4>&{theirs_out}; exec "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", both, "bash", chromium(), *flags],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._rest, self._number, self._session = b"", 0, None
        self.console, self.requests, self._loaded = [], [], False
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        attached = self._send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._send(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def open(self, path, width=1400, height=1000, dark=False, scripts=True):
        """Load a file, or an address (a text); its scripts have run when this returns."""
        self._send("Emulation.setScriptExecutionDisabled", value=not scripts)
        self._send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 640,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._send("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded = False
        self._send("Page.navigate", url=path if isinstance(path, str) else path.as_uri())
        while not self._loaded:
            self._read()

    def run(self, script):
        """Value of an expression; an exception in it is one here."""
        found = self._send(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def key(self, name, code, number):
        """Press a key, as a person would."""
        common = {"key": name, "code": code, "windowsVirtualKeyCode": number}
        text = {"text": "\r"} if name == "Enter" else {}
        self._send("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        self._send("Input.dispatchKeyEvent", type="keyUp", **common)

    def files(self, selector, paths):
        """Choose files in an <input>, as its dialog would."""
        found = self._send("Runtime.evaluate", expression=f"document.querySelector({selector!r})")
        place = found["result"]["objectId"]
        self._send("DOM.setFileInputFiles", files=[str(path) for path in paths], objectId=place)

    def shot(self, path, whole=False):
        """A PNG of what is seen, or of the whole page."""
        found = self._send("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))
        return path

    def picture(self, box):
        """PNG bytes of a part of the page: x, y, width, height."""
        clip = {**dict(zip(("x", "y", "width", "height"), box, strict=True)), "scale": 1}
        found = self._send("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(found["data"])

    def html(self):
        """The document, read without running anything in it."""
        node = self._send("DOM.getDocument")["root"]["nodeId"]
        return self._send("DOM.getOuterHTML", nodeId=node)["outerHTML"]

    def seen(self, selector):
        """How many elements have a box, without running anything in the page."""
        root = self._send("DOM.getDocument")["root"]["nodeId"]
        nodes = self._send("DOM.querySelectorAll", nodeId=root, selector=selector)["nodeIds"]
        return sum(bool(self._quads(node)) for node in nodes)

    def _quads(self, node):
        try:
            return self._send("DOM.getContentQuads", nodeId=node)["quads"]
        except AssertionError:  # it has no layout: hidden
            return []

    def _send(self, method, **parameters):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _read(self, seconds=60):
        """The next message; events are noted on the way."""
        end = time.monotonic() + seconds
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            part = os.read(self._in, 1 << 20)
            assert part, "the browser ended"
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(line)
        method, given = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            self.console.append(given["exceptionDetails"])
        elif method == "Runtime.consoleAPICalled" and given["type"] in ("error", "warning"):
            self.console.append(given)
        elif method == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
            self.console.append(given["entry"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(given["request"]["url"])
        return message
