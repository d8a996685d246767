"""Work of the main process alone, whose result or error all processes share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from vistok.config.errors import UserError


def by_main(accelerator: Accelerator, work: Callable[[], Any]) -> Any:
    """The result of the main process, or the error that it meets, for every process."""
    outcome: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            outcome = [work()]
        except (UserError, OSError) as error:
            outcome = [error]
    (result,) = broadcast_object_list(outcome)
    if isinstance(result, Exception):
        raise result
    return result
