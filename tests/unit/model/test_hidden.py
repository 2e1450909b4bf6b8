"""What a document does not tell those who may only look at it."""

from __future__ import annotations

from hostel.model.domain.secure import hide_passwords
from hostel.model.snapshot import read_snapshot

SECRET = "s3cr3t"
SOURCE = (
    f"<source protocol='http' name='a'><host name='h'/><cookies><cookie name='c'>{SECRET}</cookie></cookies></source>"
)
DOMAIN = (
    "<{tag} type='qemu'><name>d</name><devices>"
    f"<disk type='network'>{SOURCE}<target dev='vda'/>"
    f"<backingStore type='network'><format type='raw'/>{SOURCE}</backingStore></disk>"
    f"<graphics type='vnc' passwd='{SECRET}'/></devices></{{tag}}>"
)
SNAPSHOT = (
    "<domainsnapshot><name>s</name><creationTime>1</creationTime><state>shutoff</state>"
    f"<disks><disk name='vda' type='network'>{SOURCE}</disk></disks>"
    f"{DOMAIN.format(tag='domain')}{DOMAIN.format(tag='inactiveDomain')}</domainsnapshot>"
)


def test_passwords_and_cookies_are_hidden_wherever_they_are() -> None:
    snapshot = read_snapshot(SNAPSHOT, now=None, redefine=True)
    assert snapshot.format().count(SECRET) == 7
    hide_passwords(snapshot)
    shown = snapshot.format()
    assert SECRET not in shown and "cookies" not in shown
    assert shown.count("protocol='http'") == 5
