"""The command ``headgate``: one file a subcommand; each parses, calls and prints."""
