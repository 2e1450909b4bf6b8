"""Configuration of other hypervisors, of our own making, for tests of the converters and of what serves them."""

from __future__ import annotations

VMX_HEAD = 'config.version = "8"\nvirtualHW.version = "8"\n'
VMX_MACHINE = (
    VMX_HEAD
    + """displayName = "mail"
uuid.bios = "56 4d 00 11 22 33 44 55-66 77 88 99 aa bb cc dd"
memsize = "1024"
numvcpus = "4"
cpuid.coresPerSocket = "2"
sched.cpu.shares = "high"
guestOS = "debian10-64"
firmware = "efi"
scsi0.present = "TRUE"
scsi0.virtualDev = "pvscsi"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "mail.vmdk"
scsi0:0.deviceType = "scsi-hardDisk"
scsi0:1.present = "TRUE"
scsi0:1.fileName = "spool.vmdk"
scsi0:1.mode = "independent-nonpersistent"
ide1:0.present = "TRUE"
ide1:0.deviceType = "cdrom-image"
ide1:0.fileName = "/iso/debian.iso"
floppy0.present = "FALSE"
ethernet0.present = "TRUE"
ethernet0.connectionType = "nat"
ethernet0.virtualDev = "vmxnet3"
ethernet0.addressType = "generated"
ethernet0.generatedAddress = "00:0c:29:AA:BB:CC"
serial0.present = "TRUE"
serial0.fileType = "network"
serial0.fileName = "telnet://0.0.0.0:4100"
isolation.tools.hgfs.disable = "FALSE"
sharedFolder.maxNum = "1"
sharedFolder0.present = "TRUE"
sharedFolder0.enabled = "TRUE"
sharedFolder0.hostPath = "/srv/mail"
sharedFolder0.guestName = "mail"
RemoteDisplay.vnc.enabled = "TRUE"
RemoteDisplay.vnc.port = "5905"
"""
)
XL_MACHINE = """name = "db"
uuid = "6a4cbb42-0d3c-4a18-8f1c-2ad8b0b2f9f1"
type = "hvm"
memory = 1024
disk = [ "format=raw,vdev=xvda,access=rw,backendtype=phy,target=/dev/vg/db" ]
vif = [ "mac=00:16:3e:00:00:01,bridge=br0,script=vif-bridge,model=e1000" ]
"""
BHYVE_MACHINE = "/usr/sbin/bhyve -c 2 -m 512 -U 6a4cbb42-0d3c-4a18-8f1c-2ad8b0b2f9f1 -s 0:0,hostbridge web\n"
