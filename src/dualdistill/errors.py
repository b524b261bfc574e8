"""What a user did that cannot work: said in words, before time is spent."""


class UserError(Exception):
    """The user's input is wrong: the message says what was expected, what came, and what to do.

    The command line prints it without a traceback and ends with exit code 2.
    """


class DivergedError(UserError):
    """A network answers with numbers that are not finite: its training went wrong, and no result can be made of it."""
