"""The services the lab puts under load, stock and Headgate from the same handlers."""
