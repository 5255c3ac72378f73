"""The loop that joins the model and the tools, and the command line around it."""
