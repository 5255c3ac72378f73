"""Claw-Eval: office tasks with tools of their own, graded from the makers' own checkout."""
