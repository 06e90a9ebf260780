"""Manual pages in man(7) and mdoc(7), read without any program: macros to blocks of text, blocks to documentation."""
