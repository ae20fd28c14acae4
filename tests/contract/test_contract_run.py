"""Requests made up from the contract, good ones and bad ones, against a live API.

Every answer is checked: status, media type and schema are of the contract, bad requests are
refused, good ones are not, nothing is a server error, and nothing works without a token.
"""

from __future__ import annotations

from typing import Any

import schemathesis

from tests.contract.cases import CASES, SETTINGS, ask
from tests.contract.live import Live


@CASES.parametrize()
@SETTINGS
def test_contract(case: schemathesis.Case[Any], live: Live) -> None:
    ask(case, live)
