"""The hive's HTTP routes: parse, call, answer; nothing is decided here."""
