"""Services and servers in processes of their own, which end with their owner."""
