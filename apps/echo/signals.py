"""What the echo programs do when they receive a signal."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import trio

import moqt_trio as moqt

if TYPE_CHECKING:
    import logging


async def raise_interrupt(signals: AsyncIterator[int]) -> None:
    """Raise KeyboardInterrupt when a signal arrives, which cancels everything beside this task."""
    await anext(signals)
    raise KeyboardInterrupt


async def cancel_on_signal(scope: trio.CancelScope, signals: AsyncIterator[int]) -> None:
    """Cancel a scope when a signal arrives."""
    await anext(signals)
    scope.cancel()


async def reload_on_hangup(
    certificate: moqt.CertificateFiles | None,
    logger: logging.Logger,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Read the certificate's files again at each SIGHUP: connections that begin afterwards get the new certificate.

    A server that was given no files goes on, too: SIGHUP would end it otherwise.
    """
    if not hasattr(signal, "SIGHUP"):
        task_status.started()
        return
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        task_status.started()
        async for _ in signals:
            if certificate is None:
                logger.info("there is no --cert to read again")
                continue
            try:
                certificate.reload()
            except moqt.CertificateUnusable as error:
                logger.error("the certificate stays as it was: %s", error)
