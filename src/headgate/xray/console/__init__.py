"""The console: one page that shows what a process does now, for whoever has the token."""
