"""A page of MiniWoB++ in a headless browser: what stands on it, as a list of elements, and what one does with them."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hephaestus_jax.errors import UserError

_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--mute-audio",
    "--disable-extensions", "--disable-default-apps", "--window-size=500,400", "--lang=en-US",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip

# Elements in the order of the page, those that are shown only. A number stays with an element for the episode.
_SNAPSHOT = """
const outside = new Set(["reward-display", "click-canvas", "sync-task-cover", "query"]);
const found = [];
const own = (node) => [...node.childNodes].filter((part) => part.nodeType === 3)
    .map((part) => part.textContent).join(" ").replace(/\\s+/g, " ").trim();
const all = (node) => (node.innerText || "").replace(/\\s+/g, " ").trim();
const shown = (node) => {
    const style = getComputedStyle(node);
    if (style.display === "none" || style.visibility === "hidden") return false;
    const box = node.getBoundingClientRect();
    return box.width > 0 && box.height > 0;
};
const number = (node) => {
    if (!window.wobNumbers.has(node)) window.wobNumbers.set(node, window.wobNumbers.size + 1);
    return window.wobNumbers.get(node);
};
const label = (node) => {
    const around = node.closest("label");
    if (around) return all(around);
    const pointing = node.id ? document.querySelector(`label[for="${node.id}"]`) : null;
    if (pointing) return all(pointing);
    const before = node.previousElementSibling;
    if (before && before.tagName === "LABEL") return all(before);
    return node.placeholder || "";
};
const seen = (node, kind, text, extra) => found.push({ref: number(node), kind: kind, text: text, ...(extra || {}),
    ...(node.disabled ? {disabled: true} : {})});
const filled = (node) => ({value: node.value, focused: document.activeElement === node});
const walk = (node) => {
    if (outside.has(node.id) || getComputedStyle(node).display === "none") return;
    const tag = node.tagName, role = node.getAttribute("role"), list = node.classList;
    if (["SCRIPT", "STYLE", "CANVAS", "OPTION"].includes(tag)) return;
    if (tag === "INPUT" && shown(node)) {
        if (["checkbox", "radio"].includes(node.type)) {
            seen(node, node.type === "radio" ? "radio button" : "checkbox", label(node), {checked: node.checked});
        } else if (["button", "submit"].includes(node.type)) {
            seen(node, "button", node.value);
        } else {
            const kind = ["password", "date", "time", "number"].includes(node.type) ? node.type : "text";
            seen(node, kind + " field", label(node), filled(node));
        }
    } else if (tag === "TEXTAREA" && shown(node)) {
        seen(node, "text area", label(node), filled(node));
    } else if (tag === "SELECT" && shown(node)) {
        const options = [...node.options].map((option) => option.text.trim());
        const chosen = node.selectedIndex < 0 ? "" : node.options[node.selectedIndex].text.trim();
        const kind = node.multiple || node.size > 1 ? "list" : "drop-down list";
        seen(node, kind, label(node), {options: options, value: chosen});
    } else if (tag === "BUTTON" && shown(node)) {
        seen(node, "button", node.title || all(node), list.contains("selected") ? {selected: true} : {});
    } else if ((tag === "A" || list.contains("alink")) && shown(node)) {
        const tab = node.closest("[role=tab]");
        if (tab) seen(node, "tab", all(node), {open: tab.getAttribute("aria-selected") === "true"});
        else seen(node, "link", all(node));
    } else if (list.contains("ui-accordion-header") && !node.querySelector("button")) {
        seen(node, "section", all(node), {open: node.getAttribute("aria-expanded") === "true"});
    } else if (list.contains("ui-menu-item") || list.contains("ui-menu-item-wrapper")) {
        seen(node, "suggestion", all(node));
    } else if (tag === "SPAN" && (list.contains("folder") || list.contains("file"))) {
        seen(node, list.contains("folder") ? "folder" : "file", own(node));
    } else {
        const whole = !node.querySelector("input, textarea, select, button, a, .alink, .folder, .file, [role]");
        const text = own(node) && whole ? all(node) : own(node);
        const inLabel = tag === "LABEL" && (node.querySelector("input") || node.htmlFor);
        if (text && shown(node) && !inLabel && !(tag === "LABEL" && node.nextElementSibling
            && ["INPUT", "TEXTAREA", "SELECT"].includes(node.nextElementSibling.tagName))) {
            seen(node, "text", text);
        }
        if (!text || !whole) for (const child of node.children) walk(child);
    }
};
walk(document.body);
return found;
"""
_BEGIN = """
core.EPISODE_MAX_TIME = 2000000000;
if (core.EP_TIMER !== null) core.endEpisode(0);
if (document.activeElement) document.activeElement.blur();
Math.seedrandom(arguments[0]);
window.wobNumbers = new Map();
if (window.jQuery) jQuery.fx.off = true;
core.startEpisodeReal();
const said = core.getUtterance();
return typeof said === "string" ? said : said.utterance;
"""
_READY = "return typeof genProblem === 'function' && typeof core === 'object' && core.cover_div !== null;"
_LOADS, _LOOKS = 3, 150  # how often a page is loaded until it is ready, and looked at, every 0.02 s
_FIND = "let node = null; for (const [one, number] of window.wobNumbers) if (number === arguments[0]) node = one;"
_CLICK = (
    _FIND
    + """
if (document.activeElement && document.activeElement !== node) document.activeElement.blur();
node.focus();
for (const name of ["mousedown", "mouseup"]) {
    node.dispatchEvent(new MouseEvent(name, {bubbles: true, cancelable: true, view: window}));
}
node.click();
"""
)
_TYPE = (
    _FIND
    + """
node.focus();
if (node.disabled) return null;
node.value = arguments[1];
for (const name of ["input", "change"]) node.dispatchEvent(new Event(name, {bubbles: true}));
node.dispatchEvent(new KeyboardEvent("keyup", {bubbles: true}));
return node.value;
"""
)
_SELECT = (
    _FIND
    + """
for (const option of node.options) option.selected = option.text.trim() === arguments[1];
node.dispatchEvent(new Event("change", {bubbles: true}));
"""
)
_OUTCOME = "return [WOB_DONE_GLOBAL, WOB_RAW_REWARD_GLOBAL];"


@dataclass(frozen=True)
class Element:
    """Something on the page; fields that its kind does not have are None."""

    ref: int
    kind: str
    text: str
    value: str | None = None  # of what can be filled in or chosen from
    checked: bool | None = None
    open: bool | None = None
    focused: bool = False
    selected: bool = False
    disabled: bool = False
    options: tuple[str, ...] = ()

    def line(self) -> str:
        """As the agent is told of it."""
        words = f"[{self.ref}] {self.kind}"
        if self.text:
            words += f' "{self.text}"'
        if self.checked is not None:
            words += ", checked" if self.checked else ", not checked"
        if self.open is not None:
            words += ", open" if self.open else ", closed"
        if self.options:
            words += f", options: {'; '.join(self.options)}"
        if self.value is not None:
            words += f', {"chosen" if self.options else "contains"} "{self.value}"' if self.value else ", empty"
        marks = {"selected": self.selected, "has the focus": self.focused, "disabled": self.disabled}
        return ", ".join([words, *(mark for mark, is_so in marks.items() if is_so)])

    @property
    def name(self) -> str:
        """What it is called in a sentence."""
        return f'{self.kind} "{self.text}"' if self.text else f"{self.kind} [{self.ref}]"


class Browser:
    """A headless browser that shows one page at a time; `close` ends it."""

    def __init__(self) -> None:
        import miniwob

        self._pages = Path(miniwob.__file__).parent / "html" / "miniwob"
        self._driver: Any = None
        self._start()

    def _start(self) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        self._profile = tempfile.mkdtemp(prefix="miniwob-")
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for flag in (*_FLAGS, f"--user-data-dir={self._profile}"):
            options.add_argument(flag)
        service = Service(executable_path=shutil.which("chromedriver"))
        self._driver = webdriver.Chrome(service=service, options=options)
        # Without it no page of a headless browser ever has the focus, and fields do not notice that they get it.
        self._driver.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})

    def begin(self, game: str, seed: int) -> str:
        """Shows the page of a game at the beginning of an episode; what is asked for. A dead browser is replaced."""
        from selenium.common.exceptions import WebDriverException
        from urllib3.exceptions import HTTPError

        try:
            return self._begin(game, seed)
        except (WebDriverException, HTTPError, UserError):
            self.close()
            self._start()
            return self._begin(game, seed)

    def _begin(self, game: str, seed: int) -> str:
        self._load((self._pages / f"{game}.html").as_uri())  # anew: what an episode leaves behind is gone
        return " ".join(str(self._driver.execute_script(_BEGIN, str(seed))).split())

    def _load(self, address: str) -> None:
        """Loads a page, and waits until its own script has run."""
        for _ in range(_LOADS):
            self._driver.get(address)
            for _ in range(_LOOKS):
                if self._driver.execute_script(_READY):
                    return
                time.sleep(0.02)
        raise UserError(f"{address} does not load in the browser; run again with fewer workers")

    def elements(self) -> list[Element]:
        """What is on the page."""
        found = self._driver.execute_script(_SNAPSHOT)
        return [Element(**{**one, "options": tuple(one.get("options", ()))}) for one in found]

    def click(self, ref: int) -> None:
        """Clicks on an element."""
        self._driver.execute_script(_CLICK, ref)

    def type(self, ref: int, text: str) -> str | None:
        """Replaces what a field contains; what it contains then, None if it cannot be filled in now."""
        return self._driver.execute_script(_TYPE, ref, text)

    def select(self, ref: int, option: str) -> None:
        """Chooses an option of a list."""
        self._driver.execute_script(_SELECT, ref, option)

    def outcome(self) -> tuple[bool, float]:
        """Whether the episode is over, and its reward from -1 to 1."""
        done, reward = self._driver.execute_script(_OUTCOME)
        return bool(done), float(reward)

    def close(self) -> None:
        """Ends the browser; may be called twice."""
        if self._driver is not None:
            with contextlib.suppress(Exception):  # it may have died already
                self._driver.quit()
            self._driver = None
            shutil.rmtree(self._profile, ignore_errors=True)


def listed(elements: Sequence[Element]) -> str:
    """The page as an agent reads it."""
    return "\n".join(element.line() for element in elements) or "The page is empty."
