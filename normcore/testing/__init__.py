"""The conformance suite: what every op must do, checked on any op of the registry. Needs neither pytest nor hypothesis."""
