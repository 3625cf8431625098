"""A headless Chromium for tests of pages: what it complains about is a fault of the page."""

import contextlib
import shutil

import pytest
from harness import DEADLINE_S

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}


@contextlib.contextmanager
def browser():
    """Have a browser, or skip; the machine's own, for playwright's must be downloaded."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    sync_api.expect.set_options(timeout=DEADLINE_S * 1000)
    with sync_api.sync_playwright() as driver:
        # Without its sandbox, which is not for root, and needs rights that containers lack.
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield opened
        finally:
            opened.close()


class Visit:
    """A page in a window of its own.

    faults: errors of scripts, violations of the policy, dialogs. documents: URLs that were
    navigated to; asked: of all requests. missing: URLs that may.
    """

    def __init__(self, opened, **options):
        self.faults: list[str] = []
        self.documents: list[str] = []
        self.asked: list[str] = []
        self.missing: set[str] = set()
        self.context = opened.new_context(**({"viewport": DESKTOP} | options))
        self.context.set_default_timeout(DEADLINE_S * 1000)
        self.page = self.context.new_page()
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", self._refuse)
        self.page.on("request", self._note)

    def __enter__(self):
        return self.page

    def __exit__(self, *_):
        self.context.close()

    def _hear(self, message):
        is_missing = "404" in message.text and message.location["url"] in self.missing
        if message.type in ("error", "warning") and not is_missing:
            self.faults.append(message.text)

    def _refuse(self, dialog):
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _note(self, request):
        self.asked.append(request.url)
        if request.resource_type == "document":
            self.documents.append(request.url)
