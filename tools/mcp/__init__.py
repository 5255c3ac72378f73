"""Tools of MCP servers: programs or web services that the user lists (Model Context Protocol)."""
