"""Programs built on moqt_trio's public names."""

import os
import signal
import sys

EXIT_INTERRUPTED = 130
"""The exit code of a program that was interrupted, as shells count it: 128 and the number of SIGINT."""


def exit_on_interrupt() -> None:
    """Let Ctrl-C end the program at once, with `EXIT_INTERRUPTED` and nothing printed, until `raise_on_interrupt`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit)


def raise_on_interrupt() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _exit:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _exit(*_: object) -> None:
    os._exit(EXIT_INTERRUPTED)


# While `python -m` looks for the module, which loads this package first, it has not set the name of the program yet.
# What the programs import takes a good part of a second: a Ctrl-C within it would print a traceback of many lines.
if sys.argv[:1] == ["-m"]:
    exit_on_interrupt()
