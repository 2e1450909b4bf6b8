"""Documents beside the domain's are refused where they are wrong, for libvirt's reason, with its kind of error."""

from __future__ import annotations

import pytest

from hostel.drivers.fault import fault
from hostel.errors import ModelError
from support import refused_documents as refused
from support.documents import KINDS

RECORDED = refused.recorded()


def refusal(name: str) -> ModelError:
    with pytest.raises(ModelError) as raised:
        KINDS[name.partition("/")[0]][1](refused.REFUSED[name])
    return raised.value


@pytest.mark.parametrize("name", refused.WRONG)
def test_a_wrong_document_is_refused_where_it_is_wrong(name: str) -> None:
    assert refusal(name).path == refused.WRONG[name][1]


@pytest.mark.parametrize("name", refused.WRONG)
def test_a_wrong_document_is_refused_for_libvirts_reason(name: str) -> None:
    error = refusal(name)
    ours, theirs = str(fault(error.code, error.reason)), RECORDED[name]
    if name in refused.OTHER_WORDS:
        assert ours.partition(": ")[0] == theirs.partition(": ")[0]
        assert not ours.startswith(theirs)
    else:
        assert ours.startswith(theirs)  # we may say more


def test_every_record_is_of_a_document() -> None:
    assert RECORDED.keys() == refused.REFUSED.keys()
