"""A headless Chromium that a script controls by the DevTools protocol, over a pipe."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time


class Browser:
    """A browser with one page. It ends, and its files go, at the end of a `with` block."""

    def __init__(self, seconds=60):
        self.seconds = seconds
        self.number = 0
        self.events = []
        self.rest = b""

    def __enter__(self):
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        if program is None:
            raise SystemExit("chromium is missing: scripts/lib/install-packages chromium")
        self.profile = tempfile.mkdtemp(prefix="virt-walker-browser-")
        browser_reads, self.to_browser = os.pipe()
        self.from_browser, browser_writes = os.pipe()
        # The browser reads from descriptor 3 and writes to descriptor 4.
        high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in (browser_reads, browser_writes)]

        def place():
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self.process = subprocess.Popen(
            [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
             "--force-color-profile=srgb", "--user-data-dir=" + self.profile, "about:blank"],
            preexec_fn=place, pass_fds=(3, 4), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True)
        for end in [browser_reads, browser_writes] + high:
            os.close(end)
        target = self.call("Target.createTarget", {"url": "about:blank"}, False)["targetId"]
        self.session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True}, False)["sessionId"]
        for domain in ["Page", "Runtime", "Log", "Network", "Accessibility"]:
            self.call(domain + ".enable")
        return self

    def __exit__(self, *_):
        try:
            self.call("Browser.close", {}, False)
            self.process.wait(10)
        except Exception:
            self.process.kill()
            self.process.wait()
        os.close(self.to_browser)
        os.close(self.from_browser)
        shutil.rmtree(self.profile, ignore_errors=True)

    def call(self, method, parameters=None, in_page=True):
        """Calls a method of the protocol, and returns its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters or {}}
        if in_page:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.to_browser, data):]
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError("%s: %s" % (method, answer["error"]))
                return answer["result"]
            self.events.append(answer)

    def _next(self):
        while b"\0" not in self.rest:
            part = os.read(self.from_browser, 1 << 20)
            if not part:
                raise RuntimeError("the browser has ended")
            self.rest += part
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def take_events(self, *methods):
        """The events of some methods since the last call for them."""
        self.evaluate("0")
        taken = [event for event in self.events if event.get("method") in methods]
        self.events = [event for event in self.events if event.get("method") not in methods]
        return taken

    def open(self, url):
        """Opens a page, and waits until it is loaded."""
        self.call("Page.navigate", {"url": "about:blank"})
        self.call("Page.navigate", {"url": url})
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def evaluate(self, script):
        """The value of an expression in the page."""
        result = self.call("Runtime.evaluate", {"expression": script, "returnByValue": True, "awaitPromise": True})
        if "exceptionDetails" in result:
            raise RuntimeError("%s: %s" % (script, result["exceptionDetails"]))
        return result["result"].get("value")

    def wait(self, script):
        """Waits until an expression is true. The limit is long, because the machine may be busy."""
        end = time.monotonic() + self.seconds
        while not self.evaluate(script):
            if time.monotonic() > end:
                raise RuntimeError("not true after %d s: %s" % (self.seconds, script))
            time.sleep(0.05)

    def click(self, selector):
        """Clicks with the mouse into the middle of an element."""
        self.evaluate("document.querySelector(%s).scrollIntoView({block: 'center'})" % json.dumps(selector))
        box = self.evaluate(
            "(() => { const b = document.querySelector(%s).getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; })()" % json.dumps(selector))
        for kind in ["mousePressed", "mouseReleased"]:
            self.call("Input.dispatchMouseEvent",
                      {"type": kind, "x": box[0], "y": box[1], "button": "left", "clickCount": 1})

    def press(self, key, code=None, text=None):
        """Presses and releases a key."""
        numbers = {"ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35, " ": 32, "PageUp": 33, "PageDown": 34,
                   "Tab": 9, "Enter": 13}
        key_code = numbers.get(key, ord(key[0].upper()))
        if text is None and len(key) == 1:
            text = key
        if key == "Enter":
            text = "\r"
        down = {"type": "keyDown" if text else "rawKeyDown", "key": key, "code": code or key,
                "windowsVirtualKeyCode": key_code}
        if text:
            down["text"] = text
        self.call("Input.dispatchKeyEvent", down)
        self.call("Input.dispatchKeyEvent",
                  {"type": "keyUp", "key": key, "code": code or key, "windowsVirtualKeyCode": key_code})

    def size(self, width, height, scale=1):
        """Sets the size of the page in CSS pixels."""
        self.call("Emulation.setDeviceMetricsOverride",
                  {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 500})

    def scheme(self, name):
        """Sets the preferred colours: light or dark."""
        self.call("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": name}]})

    def picture(self, path):
        """Writes the visible part as PNG."""
        data = self.call("Page.captureScreenshot", {"format": "png"})["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))

    def print_to(self, path):
        """Prints the page to a PDF."""
        data = self.call("Page.printToPDF", {"printBackground": True, "paperWidth": 8.27, "paperHeight": 11.69})["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))
