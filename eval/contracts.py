"""Checks of protocols: `vistok test-part my.module` for a protocol of one's own."""

from __future__ import annotations

import inspect
import json
from typing import get_args

from vistok.config.registry import Entry
from vistok.contracts.case import Case
from vistok.contracts.check import check, expect
from vistok.eval.protocols.base import PROTOCOLS, Media, ProtocolConfig, setting_of


def protocol_entries() -> list[Entry]:
    """The registered protocols, as other families' parts are listed."""
    made = PROTOCOLS.values()
    return [Entry("protocol", one.name, type(one).Config, type(one)) for one in made]


@check("protocol", name="its name, version, media and config")
def stated(case: Case) -> None:
    protocol = case.entry.part
    whole = isinstance(protocol.version, int) and protocol.version >= 1
    expect(whole, f"version={protocol.version!r}; expected 1, raised whenever numbers change")
    unknown = set(protocol.media) - set(get_args(Media))
    expect(not unknown, f"media={protocol.media}; expected some of {get_args(Media)}")
    own = issubclass(protocol.Config, ProtocolConfig)
    expect(own, f"Config is {protocol.Config.__name__}; expected a subclass of ProtocolConfig")
    json.dumps(setting_of(protocol.Config()))


@check("protocol", name="run(context, config) can be called")
def called(case: Case) -> None:
    try:
        inspect.signature(case.entry.part().run).bind("context", "config")
    except TypeError as error:
        expect(False, f"run: {error}; expected run(context, config) -> rows")
