"""Control over what may run: approvals, rules, hooks, and the reading of shell commands."""
