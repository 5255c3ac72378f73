"""What may run: approvals, rules, hooks, and the reading of shell commands."""
