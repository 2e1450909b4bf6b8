"""Images of a Ceph cluster, reached by librbd and librados."""
