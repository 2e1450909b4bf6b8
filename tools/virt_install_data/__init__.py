"""virt-manager's own tests of virt-install, virt-xml and virt-clone, on ours."""
