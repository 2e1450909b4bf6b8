"""A file of leases is whatever it is: what cannot be read in it is left out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hostel.drivers.network.leases import read_leases

WORDS = st.one_of(
    st.sampled_from(["duid", "*", "0", "1999999999", "T5", "52:54:00:00:00:01", "06-52:54:00:00:00:01", "192.0.2.5",
                     "2001:db8::5", "00:01:00:01:2b:2b:2b:2b:52:54:00:00:00:01"]),
    st.text(max_size=8),
)  # fmt: skip
LINES = st.lists(WORDS, max_size=6).map(" ".join)


@given(st.lists(LINES, max_size=6).map("\n".join))
def test_any_text_is_read(text: str) -> None:
    for lease in read_leases(text, "br", {4: 24, 6: 64}, now=1000):
        assert lease.address in text
        assert lease.prefix == {0: 24, 1: 64}[lease.type]
        assert not 0 < lease.expiry < 1000
