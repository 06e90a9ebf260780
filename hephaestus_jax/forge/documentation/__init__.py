"""Written documentation, reStructuredText and Markdown as documentation systems extend them, as plain Markdown."""
