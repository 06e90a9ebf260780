"""What readers of other people's tool-use data share: rows of files, tool schemas, written calls, checked steps."""
