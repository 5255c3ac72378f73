"""The tools of MCP (Model Context Protocol) servers that the user lists."""
