"""The images that sandboxes start from."""
