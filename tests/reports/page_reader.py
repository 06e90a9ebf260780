"""A page as its reader sees it: tables and text by section."""

from html.parser import HTMLParser

VOID = {"meta", "wbr", "br"}


class Page(HTMLParser):
    """Tables as rows of cell texts, text by section, and all tags; fails on tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes = [], set(), []
        self.tables, self.sections, self.pre = {}, {}, []
        self.section = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag in VOID:
            return
        self.open.append(tag)
        if tag == "section":
            self.section = dict(attrs)["id"]
            assert self.section not in self.tables
            self.tables[self.section], self.sections[self.section] = [], ""
        elif tag == "tr":
            self.tables[self.section].append([])
        elif tag in ("td", "th"):
            self.tables[self.section][-1].append("")
        elif tag == "pre":
            self.pre.append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        data = data.replace("\u00a0", " ")
        if self.section:
            self.sections[self.section] += data
        if {"td", "th"} & set(self.open):
            self.tables[self.section][-1][-1] += data
        if "pre" in self.open:
            self.pre[-1] += data
