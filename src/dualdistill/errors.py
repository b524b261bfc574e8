"""Input that cannot work, and machines that cannot go on: explained in words."""


class UserError(Exception):
    """The user's input is wrong: the message states what was expected, what came, and what to do.

    The command line prints it without a traceback and ends with exit code 2.
    """


class DivergedError(UserError):
    """A network answers with numbers that are not finite: its training went wrong, and no result can be made of it."""
