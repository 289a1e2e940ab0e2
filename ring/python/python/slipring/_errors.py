"""The errors of shared rings."""


class Error(Exception):
    """A shared ring refused something; the text says what, and what to do."""


class Invalid(Error, ValueError):
    """A name, size or layout that no ring can have."""


class NotFound(Error):
    """There is no ring with this name."""


class Exists(Error):
    """There is a ring with this name already."""


class Mismatch(Error):
    """The ring, or its file, is not what was expected; the text has both sides."""


class InUse(Error):
    """Another participant has the name, is the producer, or uses the ring that is to be removed."""


class OutOfRange(Error):
    """The requested start is not kept; the text has the range."""


class Full(Error):
    """There was no room until the timeout; the text names the consumer that is furthest behind."""


class Ended(Error):
    """The ring gives and takes no more events."""


class Closed(Ended):
    """The ring was closed, and everything was read."""


class ProducerDied(Ended):
    """The producer's process died, and everything was read. After a successor has joined, reading goes on."""


class Replaced(Ended):
    """The ring's file was removed or replaced: open it again."""


class Forked(Ended):
    """This process is a fork of the one that joined: open the ring in this process."""


class Damaged(Ended):
    """Another process has written impossible numbers into the ring."""
