"""The open-loop load generator: requests leave when they are due, and latency counts from that instant."""
