"""The one exception a user is meant to read."""


class UserError(Exception):
    """Something the user can mend.

    The message is one line: what is wrong, where (file, task, record), and what to do about it. Command-line tools
    print it without a traceback and exit with status 2.
    """
