"""HTTP, one module per subject: parse, call a service, answer."""
