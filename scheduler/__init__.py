"""Everything of Kezek that touches a cluster or the clock."""
