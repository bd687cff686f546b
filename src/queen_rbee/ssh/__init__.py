"""The only place that speaks SSH: connections, host keys, commands, port forwards."""
