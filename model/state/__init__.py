"""The state of sessions: pages, slots, budget, trails."""
