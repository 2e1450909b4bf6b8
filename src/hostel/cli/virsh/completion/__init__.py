"""What may follow what somebody has written so far: commands, options and their values, as virsh offers them."""
