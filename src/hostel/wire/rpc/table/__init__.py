"""The procedure table, by what the procedures are about; :mod:`hostel.wire.rpc.procedure` tells the notation."""
