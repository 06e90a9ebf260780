"""MiniWoB++: small web pages in a browser."""
